/*
 * The program's system calls, made from the engine's code (Syscall User Dispatch lets those pass), and the signal handlers
 * before them. A system call gives up rcx and r11; everything else is the program's.
 */
    .section .note.GNU-stack, "", @progbits
    .text

    /* Eight bytes each: syscall; jmp *arch_stub_returns+8*i(%rip) */
    .globl arch_stubs
    .hidden arch_stubs
    .balign 16
arch_stubs:
    .set index, 0
    .rept 2048
    syscall
    .byte 0xff, 0x25
    .long arch_stub_returns + 8*index - . - 4
    .set index, index + 1
    .endr

    .globl arch_thread_stubs
    .hidden arch_thread_stubs
    .balign 32
arch_thread_stubs:
    .set index, 0
    .rept 16
    .balign 32
    syscall
    mov $index, %ecx
    test %rax, %rax
    jz thread_started
    jmp *arch_thread_stub_returns+8*index(%rip)
    .set index, index + 1
    .endr

    /* In the new thread, on its own stack, below which start_thread in dispatch.c has left a word; ecx is the stub. */
thread_started:
    lea -128(%rsp), %rsp
    push %rcx
    push %rdi
    push %rsi
    push %rdx
    push %r8
    push %r9
    push %r10
    push %rbp
    mov %rsp, %rbp
    mov 64(%rsp), %rdi
    and $-16, %rsp
    call dispatch_thread_started
    mov %rbp, %rsp
    pop %rbp
    pop %r10
    pop %r9
    pop %r8
    pop %rdx
    pop %rsi
    pop %rdi
    pop %rcx
    lea 128(%rsp), %rsp
    lea arch_thread_stub_returns(%rip), %r11
    xor %eax, %eax
    jmp *(%r11,%rcx,8)

    /* A signal handler (rdi number, rsi siginfo, rdx ucontext) with the kernel's frame on the stack, which the program's own
     * handler takes over when there is one: it is entered as by the kernel. */
    .macro handler name, function
    .globl \name
    .hidden \name
    .type \name, @function
\name:
    push %rdi
    push %rsi
    push %rdx
    call \function
    pop %rdx
    pop %rsi
    pop %rdi
    test %rax, %rax
    jz 1f
    mov %rax, %r11
    xor %eax, %eax
    jmp *%r11
1:  ret
    .size \name, .-\name
    .endm

    handler arch_dispatch_entry, engine_dispatched_call
    handler arch_fault_entry, engine_fault
    handler arch_signal_entry, engine_signal

    .bss
    .balign 8
    .globl arch_stub_returns
    .hidden arch_stub_returns
arch_stub_returns:
    .skip 2048*8
    .globl arch_thread_stub_returns
    .hidden arch_thread_stub_returns
arch_thread_stub_returns:
    .skip 16*8
