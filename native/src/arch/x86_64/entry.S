/* Entry of the static executables, and the code that C cannot express. System V AMD64 ABI throughout. */
    .section .note.GNU-stack, "", @progbits
    .text

    .globl arch_signal_return
    .hidden arch_signal_return
    .type arch_signal_return, @function
    /* GDB and libgcc's unwinder know a signal frame by exactly these bytes; the nop before keeps pc-1 look-ups inside. */
    nop
arch_signal_return:
    mov $15, %rax
    syscall
    .size arch_signal_return, .-arch_signal_return

    .globl arch_park
    .hidden arch_park
    .type arch_park, @function
arch_park:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    sub $8, %rsp
    mov %rsp, (%rdi)
    mov %rdx, %rdi
    call *%rsi
    xor %eax, %eax
.Lpark_return:
    add $8, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size arch_park, .-arch_park

    .globl arch_park_resume
    .hidden arch_park_resume
    .type arch_park_resume, @function
arch_park_resume:
    mov $1, %eax
    jmp .Lpark_return
    .size arch_park_resume, .-arch_park_resume

    .globl arch_clone3
    .hidden arch_clone3
    .type arch_clone3, @function
    /* (arguments rdi, size rsi, function rdx, argument rcx): a system call keeps rdx, and r8 takes the argument across it */
arch_clone3:
    mov %rcx, %r8
    mov $435, %eax
    syscall
    test %rax, %rax
    jz 1f
    ret
1:  xor %ebp, %ebp
    and $-16, %rsp
    mov %r8, %rdi
    call *%rdx
    ud2
    .size arch_clone3, .-arch_clone3

    /*
     * Where the restorer sends a restored thread. rdi is 0; or, for a leader that had ended before the capture, the counter
     * of arrived threads: such a thread has no stack of its own.
     */
    .globl arch_resume_entry
    .hidden arch_resume_entry
    .type arch_resume_entry, @function
arch_resume_entry:
    test %rdi, %rdi
    jz arch_park_resume
    lock incl (%rdi)
    mov $60, %eax
    xor %edi, %edi
    syscall
    ud2
    .size arch_resume_entry, .-arch_resume_entry

    .globl arch_call_on_stack
    .hidden arch_call_on_stack
    .type arch_call_on_stack, @function
arch_call_on_stack:
    push %rbp
    mov %rsp, %rbp
    mov %rdi, %rax
    mov %rsi, %rdi
    mov %rdx, %rsp
    and $-16, %rsp
    call *%rax
    mov %rbp, %rsp
    pop %rbp
    ret
    .size arch_call_on_stack, .-arch_call_on_stack

    .globl arch_jump_on_stack
    .hidden arch_jump_on_stack
    .type arch_jump_on_stack, @function
arch_jump_on_stack:
    mov %rdx, %rsp
    mov %rdi, %rax
    mov %rsi, %rdi
    xor %ebp, %ebp
    jmp *%rax
    .size arch_jump_on_stack, .-arch_jump_on_stack

    .globl arch_clone
    .hidden arch_clone
    .type arch_clone, @function
    /* (flags rdi, stack rsi, parent_tid rdx, child_tid rcx, thread_pointer r8, function r9, argument on the stack) */
arch_clone:
    mov 8(%rsp), %r11
    and $-16, %rsi
    sub $16, %rsi
    mov %r9, (%rsi)
    mov %r11, 8(%rsi)
    mov %rcx, %r10
    mov $56, %eax
    syscall
    test %rax, %rax
    jz 1f
    ret
1:  xor %ebp, %ebp
    pop %rax
    pop %rdi
    call *%rax
    ud2
    .size arch_clone, .-arch_clone

    /*
     * Makes a system call with changed arguments in the middle of a program that has made it with others. Entered by
     * rt_sigreturn with r11 = struct arch_changed_call; the stack below the program's red zone holds that pointer while the
     * kernel has r11. rcx and r11 are free: the program's own system call instruction had given them up.
     */
    .globl arch_changed_call_start
    .hidden arch_changed_call_start
    .globl arch_changed_call_syscall_end
    .hidden arch_changed_call_syscall_end
    .globl arch_changed_call_end
    .hidden arch_changed_call_end
    .type arch_changed_call_start, @function
arch_changed_call_start:
    lea -256(%rsp), %rsp
    mov %r11, (%rsp)
    mov 0(%r11), %rdi
    mov 8(%r11), %rsi
    mov 16(%r11), %rdx
    mov 24(%r11), %r10
    mov 32(%r11), %r8
    mov 40(%r11), %r9
    mov 104(%r11), %rax
    syscall
arch_changed_call_syscall_end:
    mov (%rsp), %r11
    mov 48(%r11), %rdi
    mov 56(%r11), %rsi
    mov 64(%r11), %rdx
    mov 72(%r11), %r10
    mov 80(%r11), %r8
    mov 88(%r11), %r9
    mov 96(%r11), %rcx
    movq $0, 112(%r11)
    lea 256(%rsp), %rsp
    jmp *%rcx
arch_changed_call_end:
    .size arch_changed_call_start, .-arch_changed_call_start
