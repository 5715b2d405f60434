/*
 * What replaces `mov $number, %eax; syscall` (7 bytes) in the C library: a jump to one of these. Each makes room below the
 * red zone, handles the call, and goes back behind it; like the kernel, it changes rax, rcx and r11 only.
 */
    .section .note.GNU-stack, "", @progbits
    .text

patch_handle:
    push %rdi
    push %rsi
    push %rdx
    push %r8
    push %r9
    push %r10
    push %rbp
    mov %rsp, %rbp
    and $-16, %rsp
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
    ret

    .macro entry index
    .balign 64
    lea -128(%rsp), %rsp
    mov arch_patch_numbers+8*\index(%rip), %rax
    call patch_handle
    lea 128(%rsp), %rsp
    jmp *arch_patch_returns+8*\index(%rip)
    .endm

    .globl arch_patch_entries
    .hidden arch_patch_entries
    .balign 64
arch_patch_entries:
    entry 0
    entry 1
    entry 2
    entry 3
    entry 4
    entry 5
    entry 6
    entry 7

    .bss
    .globl arch_patch_returns
    .hidden arch_patch_returns
    .balign 8
arch_patch_returns:
    .skip 64
    .globl arch_patch_numbers
    .hidden arch_patch_numbers
arch_patch_numbers:
    .skip 64
