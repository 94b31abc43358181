// SPDX-License-Identifier: Apache-2.0
// What the machine tells an operating system about itself (ACPI 6.4). Hardware-reduced: no PM timer, no SCI; power
// button and PCI hot-plug come through one Generic Event Device (section 5.6.9).
//
// Run through the C preprocessor with vmm/arch/x86_64/layout.h's addresses, then iasl. The 64-bit PCI window depends on
// the instance's memory: the VMM patches the two named integers M64B and M64E.

#define SLOTS(X) \
  X(01, 1) X(02, 2) X(03, 3) X(04, 4) X(05, 5) X(06, 6) X(07, 7) X(08, 8) X(09, 9) X(0A, 10) X(0B, 11) \
  X(0C, 12) X(0D, 13) X(0E, 14) X(0F, 15) X(10, 16) X(11, 17) X(12, 18) X(13, 19) X(14, 20) X(15, 21) \
  X(16, 22) X(17, 23) X(18, 24) X(19, 25) X(1A, 26) X(1B, 27) X(1C, 28) X(1D, 29) X(1E, 30) X(1F, 31)

// A slot: the guest's eject request reaches the VMM as its bit in B0EJ.
#define SLOT_DEVICE(hex, number) \
  Device (S##hex) { \
    Name (_ADR, 0x##hex##0000) \
    Name (_SUN, number) \
    Method (_EJ0, 1, Serialized) { EJCT (number) } \
  }
#define SLOT_NOTIFY(hex, number) \
  If ((Arg0 >> number) & 1) { Notify (S##hex, Arg1) }

DefinitionBlock ("dsdt.aml", "DSDT", 2, "HANEUL", "HNLVM", 1)
{
  Scope (\_SB)
  {
    Name (M64B, 0x1111111111111111)
    Name (M64E, 0x2222222222222222)

    Device (MBRD)
    {
      Name (_HID, EisaId ("PNP0C02"))
      Name (_UID, Zero)
      Name (_CRS, ResourceTemplate ()
      {
        Memory32Fixed (ReadWrite, ECAM_GPA, ECAM_BYTES)
        Memory32Fixed (ReadWrite, EVENT_GPA, 0x1000)
      })
    }

    Device (PCI0)
    {
      Name (_HID, EisaId ("PNP0A08"))
      Name (_CID, EisaId ("PNP0A03"))
      Name (_SEG, Zero)
      Name (_BBN, Zero)
      Name (_UID, Zero)
      Method (_CRS, 0, Serialized)
      {
        Name (RBUF, ResourceTemplate ()
        {
          WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0, 0, 1)
          IO (Decode16, 0xCF8, 0xCF8, 0x01, 0x08)
          DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
            0, MMIO32_GPA, MMIO32_LAST, 0, MMIO32_BYTES)
          QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
            0, 0x4000000000, 0x5FFFFFFFFF, 0, 0x2000000000, , , W64)
        })
        CreateQWordField (RBUF, \_SB.PCI0._CRS.W64._MIN, WMIN)
        CreateQWordField (RBUF, \_SB.PCI0._CRS.W64._MAX, WMAX)
        CreateQWordField (RBUF, \_SB.PCI0._CRS.W64._LEN, WLEN)
        WMIN = M64B
        WMAX = M64E
        WLEN = M64E - M64B + 1
        Return (RBUF)
      }

      OperationRegion (HPRG, SystemMemory, HOTPLUG_GPA, 0x10)
      Field (HPRG, DWordAcc, NoLock, WriteAsZeros)
      {
        PCIU, 32,  // slots newly plugged; reading clears
        PCID, 32,  // slots asked to leave; reading clears
        B0EJ, 32   // write: eject
      }
      Mutex (HPLK, 0)
      Method (EJCT, 1, Serialized)
      {
        Acquire (HPLK, 0xFFFF)
        B0EJ = 1 << Arg0
        Release (HPLK)
      }
      SLOTS (SLOT_DEVICE)
      Method (NTFY, 2, Serialized)
      {
        SLOTS (SLOT_NOTIFY)
      }
      Method (SCAN, 0, Serialized)
      {
        Acquire (HPLK, 0xFFFF)
        Local0 = PCIU
        Local1 = PCID
        Release (HPLK)
        NTFY (Local0, 1)
        NTFY (Local1, 3)
      }
    }

    Device (COM1)
    {
      Name (_HID, EisaId ("PNP0501"))
      Name (_UID, Zero)
      Name (_CRS, ResourceTemplate ()
      {
        Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, , , ) { SERIAL_IRQ }
        IO (Decode16, SERIAL_PORT, SERIAL_PORT, 0, 8)
      })
    }

    Device (PWRB)
    {
      Name (_HID, EisaId ("PNP0C0C"))
      Name (_UID, Zero)
    }

    // Microsoft's "Virtual Machine Generation ID": 16 bytes that are new in each machine that is started, by which a
    // system knows that it is a copy. The second name is for systems that match no long ones.
    Device (VGEN)
    {
      Name (_HID, "HNL0001")
      Name (_CID, Package () { "VM_Gen_Counter", "VMGENCTR" })
      Name (_DDN, "VM_Gen_Counter")
      Name (ADDR, Package () { GENERATION_GPA, 0 })
    }

    Device (GED0)
    {
      Name (_HID, "ACPI0013")
      Name (_UID, Zero)
      Name (_CRS, ResourceTemplate ()
      {
        Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, , , ) { EVENT_IRQ }
      })
      OperationRegion (EVRG, SystemMemory, EVENT_GPA, 0x10)
      Field (EVRG, DWordAcc, NoLock, WriteAsZeros)
      {
        PEND, 32  // bit 0 power button, bit 1 PCI hot-plug; reading clears
      }
      Method (_EVT, 1, Serialized)
      {
        Local0 = PEND
        If (Local0 & 1) { Notify (PWRB, 0x80) }
        If (Local0 & 2) { \_SB.PCI0.SCAN () }
      }
    }
  }

  Name (\_S5, Package () { 5, 0, 0, 0 })
}
