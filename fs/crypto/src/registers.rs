//! Owns the clearing of vector registers after a computation with keys.
//!
//! It must not know the computation. Flow: `crate::stack` calls [`clear`] when a computation is over.
//!
//! Why: block cipher code keeps round keys in vector registers and leaves them there. The next signal,
//! system call or lazily bound function call saves all vector registers to memory: round keys of the
//! portable engine were found on the stack and in static data after a panic. AWS-LC clears its own.

/// Overwrites every vector register that the calling convention does not preserve: on x86-64 with
/// System V, all of them.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn clear() {
    use std::arch::{asm, is_x86_feature_detected};

    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has these registers (just checked); all of them are declared as
        // clobbered, no memory is touched, and flags are kept.
        unsafe {
            asm!(
                "vpxord zmm16, zmm16, zmm16",
                "vpxord zmm17, zmm17, zmm17",
                "vpxord zmm18, zmm18, zmm18",
                "vpxord zmm19, zmm19, zmm19",
                "vpxord zmm20, zmm20, zmm20",
                "vpxord zmm21, zmm21, zmm21",
                "vpxord zmm22, zmm22, zmm22",
                "vpxord zmm23, zmm23, zmm23",
                "vpxord zmm24, zmm24, zmm24",
                "vpxord zmm25, zmm25, zmm25",
                "vpxord zmm26, zmm26, zmm26",
                "vpxord zmm27, zmm27, zmm27",
                "vpxord zmm28, zmm28, zmm28",
                "vpxord zmm29, zmm29, zmm29",
                "vpxord zmm30, zmm30, zmm30",
                "vpxord zmm31, zmm31, zmm31",
                "vzeroall",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags)
            );
        }
    } else if is_x86_feature_detected!("avx") {
        // SAFETY: as above; `vzeroall` clears the sixteen registers of AVX.
        unsafe {
            asm!("vzeroall", clobber_abi("sysv64"), options(nomem, nostack, preserves_flags));
        }
    } else {
        // SAFETY: as above; every x86-64 processor has these sixteen registers.
        unsafe {
            asm!(
                "pxor xmm0, xmm0",
                "pxor xmm1, xmm1",
                "pxor xmm2, xmm2",
                "pxor xmm3, xmm3",
                "pxor xmm4, xmm4",
                "pxor xmm5, xmm5",
                "pxor xmm6, xmm6",
                "pxor xmm7, xmm7",
                "pxor xmm8, xmm8",
                "pxor xmm9, xmm9",
                "pxor xmm10, xmm10",
                "pxor xmm11, xmm11",
                "pxor xmm12, xmm12",
                "pxor xmm13, xmm13",
                "pxor xmm14, xmm14",
                "pxor xmm15, xmm15",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}

/// Other processors: registers are left as they are; the crate's documentation says so.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn clear() {}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::arch::asm;

    const PATTERN: u64 = 0x0123_4567_89ab_cdef;

    fn load() {
        // SAFETY: writes two registers that the calling convention lets every function change.
        unsafe {
            asm!("movq xmm7, {0}", "movq xmm14, {0}", in(reg) PATTERN, out("xmm7") _, out("xmm14") _);
        }
    }

    fn read() -> [u64; 2] {
        let (low, high);
        // SAFETY: reads registers only; what they hold is what the test is about.
        unsafe { asm!("movq {0}, xmm7", "movq {1}, xmm14", out(reg) low, out(reg) high) };
        [low, high]
    }

    #[test]
    fn nothing_stays_in_vector_registers() {
        load();
        assert_eq!(read(), [PATTERN; 2], "without clearing it stays");
        load();
        super::clear();
        assert_eq!(read(), [0; 2]);
    }
}
