// SPDX-License-Identifier: Apache-2.0
// The compiled DSDT, for acpi.cc. DSDT_AML is the file that iasl made.
    .section .rodata
    .global haneul_dsdt_aml
    .global haneul_dsdt_aml_end
    .balign 8
haneul_dsdt_aml:
    .incbin DSDT_AML
haneul_dsdt_aml_end:
    .section .note.GNU-stack, "", @progbits
