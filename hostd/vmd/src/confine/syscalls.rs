//! Seccomp: which system calls remain.
//!
//! Owns the lists, each group with its reason. Three filters lie on top of each other and the strictest answer
//! counts: calls that only an attacker makes kill the process, `clone3` says that it does not exist so that
//! the C library falls back to `clone` (whose flags a filter can see), and whatever is not on the list of
//! needs gets EPERM. Hot calls carry no argument rules, so the kernel answers them from its bitmap. Flow:
//! [`restrict`] compiles the three and puts every thread under them.

use hostd_api::link::SO_PASSRIGHTS;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;

/// `FUSE_DEV_IOC_CLONE`, `_IOR(229, 0, u32)`: another /dev/fuse descriptor for the same mount.
const FUSE_DEV_IOC_CLONE: u64 = 0x8004_e500;

/// What the data plane needs, by reason.
const ALLOWED: &[(&str, &[libc::c_long])] = &[
    (
        "payloads and home files: data at offsets",
        &[
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_preadv,
            libc::SYS_pwritev,
            libc::SYS_preadv2,
            libc::SYS_pwritev2,
            libc::SYS_fallocate,
            libc::SYS_ftruncate,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_sync_file_range,
            libc::SYS_syncfs,
            libc::SYS_lseek,
            libc::SYS_copy_file_range,
            libc::SYS_fadvise64,
        ],
    ),
    (
        "the home: names and attributes below its folder (the own root and landlock say where)",
        &[
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_newfstatat,
            libc::SYS_fstat,
            libc::SYS_statx,
            libc::SYS_fstatfs,
            libc::SYS_statfs,
            libc::SYS_getdents64,
            libc::SYS_readlinkat,
            libc::SYS_mkdirat,
            libc::SYS_mknodat,
            libc::SYS_unlinkat,
            libc::SYS_renameat,
            libc::SYS_renameat2,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_utimensat,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_fgetxattr,
            libc::SYS_fsetxattr,
            libc::SYS_flistxattr,
            libc::SYS_fremovexattr,
            libc::SYS_umask,
            libc::SYS_flock,
        ],
    ),
    (
        "clients of NBD, the link, /dev/fuse and the log: use of sockets that are open, none made",
        &[
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_accept4,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_shutdown,
            libc::SYS_getsockopt,
            libc::SYS_ppoll,
            libc::SYS_epoll_create1,
            libc::SYS_epoll_ctl,
            libc::SYS_epoll_pwait,
            libc::SYS_eventfd2,
            libc::SYS_splice,
            libc::SYS_pipe2,
            libc::SYS_close,
            libc::SYS_dup,
            libc::SYS_dup3,
            libc::SYS_fcntl,
        ],
    ),
    (
        "memory: buffers, stacks, key sheets; mmap and mprotect are under RULED",
        &[
            libc::SYS_munmap,
            libc::SYS_mremap,
            libc::SYS_madvise,
            libc::SYS_brk,
            libc::SYS_mlock,
            libc::SYS_mlock2,
            libc::SYS_munlock,
        ],
    ),
    (
        "threads and time",
        &[
            libc::SYS_futex,
            libc::SYS_set_robust_list,
            libc::SYS_rseq,
            libc::SYS_sigaltstack,
            libc::SYS_rt_sigaction,
            libc::SYS_rt_sigprocmask,
            libc::SYS_rt_sigreturn,
            libc::SYS_restart_syscall,
            libc::SYS_sched_yield,
            libc::SYS_sched_getaffinity,
            libc::SYS_membarrier,
            libc::SYS_gettid,
            libc::SYS_getpid,
            libc::SYS_getuid,
            libc::SYS_geteuid,
            libc::SYS_getgid,
            libc::SYS_getegid,
            libc::SYS_clock_gettime,
            libc::SYS_clock_nanosleep,
            libc::SYS_nanosleep,
            libc::SYS_getrandom,
            libc::SYS_exit,
            libc::SYS_exit_group,
        ],
    ),
];

/// Calls of older architectures that newer ones do without.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] =
    &[libc::SYS_poll, libc::SYS_epoll_wait, libc::SYS_stat, libc::SYS_lstat, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// What no part of a data plane ever calls; a process that does is under foreign control.
const HOSTILE: &[libc::c_long] = &[
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    // programs
    libc::SYS_execve,
    libc::SYS_execveat,
    // kernel and its attack surface
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // keys of the kernel
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // mounts, roots and name spaces
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Puts every thread under the three filters.
pub(super) fn restrict() -> Result<Vec<String>, String> {
    let permission = u32::try_from(libc::EPERM).map_err(|e| e.to_string())?;
    let missing = u32::try_from(libc::ENOSYS).map_err(|e| e.to_string())?;
    let filters = [
        compile(plain(HOSTILE), SeccompAction::Allow, SeccompAction::KillProcess)?,
        compile(plain(&[libc::SYS_clone3]), SeccompAction::Allow, SeccompAction::Errno(missing))?,
        compile(needs()?, SeccompAction::Errno(permission), SeccompAction::Allow)?,
    ];
    for filter in &filters {
        seccompiler::apply_filter_all_threads(filter).map_err(|e| e.to_string())?;
    }
    Ok(vec!["seccomp".into()])
}

/// Everything that is allowed, with the rules on arguments.
fn needs() -> Result<Rules, String> {
    let mut rules = plain(ALLOWED_HERE);
    for (_, calls) in ALLOWED {
        rules.extend(plain(calls));
    }
    // The filter of its own answers it; this one has to let it through.
    rules.extend(plain(&[libc::SYS_clone3]));
    let pid = u64::from(std::process::id());
    let no_code = no_bits(2, libc::PROT_EXEC)?;
    let a_thread = all_bits(0, libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND)?;
    let ruled = [
        // Memory is data, never new code.
        (libc::SYS_mmap, vec![no_code.clone()]),
        (libc::SYS_mprotect, vec![no_code]),
        // Times and buffers of sockets, but never again the descriptors that clients might pass.
        (libc::SYS_setsockopt, vec![is_not(2, u64::from(SO_PASSRIGHTS.unsigned_abs()))?]),
        // Threads, no processes.
        (libc::SYS_clone, vec![a_thread]),
        // abort() signals a thread of its own process.
        (libc::SYS_tgkill, vec![equals(0, pid)?]),
        // The only ioctl: another channel to the FUSE connection.
        (libc::SYS_ioctl, vec![equals(1, FUSE_DEV_IOC_CLONE)?]),
        // Names of threads.
        (libc::SYS_prctl, vec![equals(0, u64::from(libc::PR_SET_NAME.unsigned_abs()))?]),
        // The own limits may be read, for the advice in error messages, not set.
        (libc::SYS_prlimit64, vec![equals(0, 0)?, is_null(2)?]),
    ];
    for (call, conditions) in ruled {
        rules.insert(call, vec![SeccompRule::new(conditions).map_err(|e| e.to_string())?]);
    }
    Ok(rules)
}

fn plain(calls: &[libc::c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|e| format!("{e}"))?;
    SeccompFilter::new(rules, otherwise, listed, arch)
        .and_then(TryInto::try_into)
        .map_err(|e| e.to_string())
}

/// Argument `at` has all of `bits`.
fn all_bits(at: u8, bits: libc::c_int) -> Result<SeccompCondition, String> {
    let bits = u64::from(bits.unsigned_abs());
    condition(at, SeccompCmpOp::MaskedEq(bits), bits)
}

/// Argument `at` has none of `bits`.
fn no_bits(at: u8, bits: libc::c_int) -> Result<SeccompCondition, String> {
    condition(at, SeccompCmpOp::MaskedEq(u64::from(bits.unsigned_abs())), 0)
}

/// Argument `at`, a 32-bit number, is `value`.
fn equals(at: u8, value: u64) -> Result<SeccompCondition, String> {
    condition(at, SeccompCmpOp::Eq, value)
}

/// Argument `at`, a 32-bit number, is anything but `value`.
fn is_not(at: u8, value: u64) -> Result<SeccompCondition, String> {
    condition(at, SeccompCmpOp::Ne, value)
}

/// Argument `at`, a pointer, points nowhere.
fn is_null(at: u8) -> Result<SeccompCondition, String> {
    SeccompCondition::new(at, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
        .map_err(|e| e.to_string())
}

fn condition(at: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(at, SeccompCmpArgLen::Dword, operator, value).map_err(|e| e.to_string())
}
