/*
 * Where code goes on whose system call has been redirected (code.c): rax has the number, the other registers the call's
 * arguments, and the stack pointer is below the program's red zone. Like the kernel, this changes rax, rcx and r11 only.
 */
    .section .note.GNU-stack, "", @progbits
    .text

    .globl arch_redirected_entry
    .hidden arch_redirected_entry
    .type arch_redirected_entry, @function
arch_redirected_entry:
    pushfq
    push %rdi
    push %rsi
    push %rdx
    push %r8
    push %r9
    push %r10
    push %rbp
    mov %rsp, %rbp
    and $-16, %rsp
    cld
    /* (number, a, b, c, d, e): the kernel's fourth argument is in r10 */
    mov %r8, %r9
    mov %r10, %r8
    mov %rdx, %rcx
    mov %rsi, %rdx
    mov %rdi, %rsi
    mov %rax, %rdi
    call engine_redirected_call
    mov %rbp, %rsp
    pop %rbp
    pop %r10
    pop %r9
    pop %r8
    pop %rdx
    pop %rsi
    pop %rdi
    popfq
    ret
    .size arch_redirected_entry, .-arch_redirected_entry
