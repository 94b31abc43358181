# SPDX-License-Identifier: Apache-2.0
# The way into a freestanding guest. Its first instructions write '!' to the serial port: the moment at which the
# guest runs. Then it leaves ring 0 as soon as it can, for a ring 3 that may use every port (IOPL 3) and every address:
# some KVMs interpret ring 0 a microsecond an instruction, and run ring 3 on the processor.

    .section .text.start, "ax"
    .code64
    .global start
start:
    movw $0x3f8, %dx
    movb $'!', %al
    outb %al, %dx
    lea stack_top(%rip), %rsp
    mov $pml4, %eax
    mov %rax, %cr3
long_mode:
    # Two commands need ring 0; the first byte of the command line tells them.
    mov 0x228(%rsi), %ebx            # boot_params.hdr.cmd_line_ptr
    cmpb $'3', (%rbx)                # "3fault": a triple fault
    je triple_fault
    cmpb $'0', (%rbx)                # "0halt": interrupts off, for ever
    je halt
    lgdt gdt_pointer
    pushq $0x23                      # SS: user data
    lea stack_top(%rip), %rax
    pushq %rax
    pushq $0x3002                    # RFLAGS: IOPL 3
    pushq $0x2b                      # CS: user code, 64-bit
    lea user(%rip), %rax
    pushq %rax
    iretq

triple_fault:
    lidt no_idt
    ud2
halt:
    cli
    hlt
    jmp halt

user:
    mov %rsi, %rdi                   # boot_params
    call guest_main
1:  pause
    jmp 1b

# Where another vCPU begins after INIT and SIPI: copied to a page below 1 MiB, in real mode, CS:0. Straight to long mode,
# and on in ring 3 with a stack and a number that the first vCPU left for it.
    .code16
    .global ap_start, ap_end, ap_stack
ap_start:
    cli
    movw %cs, %ax
    movw %ax, %ds
    movl $0x20, %eax                 # CR4.PAE
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx           # EFER.LME
    xorl %edx, %edx
    movl $0x100, %eax
    wrmsr
    lgdtl ap_gdt_pointer - ap_start
    movl $0x80000001, %eax           # CR0.PG, CR0.PE
    movl %eax, %cr0
    ljmpl $0x10, $ap_long
    .balign 4
ap_gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
ap_end:
    .code64
ap_long:
    mov $0x18, %eax
    mov %eax, %ss
    mov ap_stack, %rsp
    mov %rsp, %rax
    pushq $0x23
    pushq %rax
    pushq $0x3002
    pushq $0x2b
    lea ap_user(%rip), %rax
    pushq %rax
    iretq
ap_user:
    call guest_ap
1:  pause
    jmp 1b

# For loaders that start an ELF file by the PVH protocol (QEMU does): in 32-bit mode without paging, EBX pointing to
# struct hvm_start_info. To long mode, and on with a boot_params that has the command line alone.
    .code32
    .global pvh_start
pvh_start:
    movw $0x3f8, %dx
    movb $'!', %al
    outb %al, %dx
    movl 24(%ebx), %eax              # hvm_start_info.cmdline_paddr
    movl %eax, pvh_boot_params + 0x228
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0x20, %eax                 # CR4.PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx           # EFER.LME
    xorl %edx, %edx
    movl $0x100, %eax
    wrmsr
    lgdt gdt_pointer
    movl $0x80000001, %eax           # CR0.PG, CR0.PE
    movl %eax, %cr0
    ljmp $0x10, $pvh_long
    .code64
pvh_long:
    mov $pvh_boot_params, %esi
    lea stack_top(%rip), %rsp
    jmp long_mode

    .section .note.pvh, "a"
    .balign 4
    .long 4, 4, 18                   # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start

    .data
    .balign 8
gdt:
    .quad 0
    .quad 0
    .quad 0x00af9b000000ffff         # 0x10 kernel code
    .quad 0x00cf93000000ffff         # 0x18 kernel data
    .quad 0x00cff3000000ffff         # 0x20 user data
    .quad 0x00affb000000ffff         # 0x28 user code
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt
no_idt:
    .word 0
    .quad 0

# Identity map, for user mode: 5 GiB, and the first GiB of the PCI window at 256 GiB.
    .balign 4096
pml4:
    .quad pdpt + 7
    .fill 511, 8, 0
pdpt:
    .quad pd + 7, pd + 0x1007, pd + 0x2007, pd + 0x3007, pd + 0x4007
    .fill 251, 8, 0
    .quad pd_window + 7
    .fill 255, 8, 0
pd:
    .set page, 0
    .rept 2560
    .quad page + 0x87
    .set page, page + 0x200000
    .endr
pd_window:
    .set page, 0x4000000000
    .rept 512
    .quad page + 0x87
    .set page, page + 0x200000
    .endr

    .balign 8
ap_stack:
    .quad 0

    .bss
    .balign 16
pvh_boot_params:
    .space 0x230
    .space 65536
stack_top:
    .section .note.GNU-stack, "", @progbits
