/* Entry of the static position-independent executables: applies their own relocations, then calls program_main. */
    .section .note.GNU-stack, "", @progbits
    .text
    .globl _start
    .type _start, @function
_start:
    xor %ebp, %ebp
    mov %rsp, %rdi
    lea _DYNAMIC(%rip), %rsi
    and $-16, %rsp
    call program_start
    ud2
    .size _start, .-_start
