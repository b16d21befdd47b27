//! Instruction sets, and detection of those that this machine supports.

use std::sync::OnceLock;

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust: always available, and the reference in tests of the others.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// [`Isa::Avx512`] with 8-bit dot products (VNNI).
    Avx512Vnni,
    /// [`Isa::Avx512Vnni`] with bf16 dot products.
    Avx512Bf16,
    /// AArch64 with Advanced SIMD.
    Neon,
}

impl Isa {
    /// All instruction sets, portable code first.
    pub const ALL: [Self; 6] = [
        Self::Portable,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
        Self::Neon,
    ];

    /// Returns whether this machine, and this build, can run the instruction set.
    pub(crate) fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                Self::Avx512Vnni.is_available() && is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(
                unreachable_patterns,
                reason = "which arms are left depends on the target"
            )]
            _ => false,
        }
    }

    /// Returns the instruction sets of this machine, slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// Returns the fastest instruction set of this machine. Detection runs once.
    #[must_use]
    pub fn detected() -> Self {
        static DETECTED: OnceLock<Isa> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let pays = |isa: &Self| *isa != Self::Avx512Bf16 || has_fast_bf16_dots();
            Self::available()
                .filter(pays)
                .last()
                .unwrap_or(Self::Portable)
        })
    }

    /// Returns the name for tables and logs, for example `avx512-bf16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Neon => "neon",
        }
    }
}

/// Returns whether bf16 dot products compute more per second than multiply-adds of f32.
///
/// On Intel's cores they compute half as much, since they share one unit (Emerald Rapids: 178 and
/// 347 GFLOP/s on two threads), and widening the weights takes little beside a few rows. The answer
/// depends on the vendor and not on a measurement, so that all runs on a machine compute the same
/// bits.
fn has_fast_bf16_dots() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let id = std::arch::x86_64::__cpuid(0);
        [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat() != b"GenuineIntel"
    }
    #[cfg(not(target_arch = "x86_64"))]
    true
}
