//! Images in the home: qcow2 files of QEMU, a guest that runs from one, and a file system on a loop device.

use super::{MODES, host_with_home, program, remount, sized};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::command::{run, run_command};
use tests::guest::{self, Guest};
use tests::host::{Host, pattern, write_pattern};
use tests::{needs, wait};

const MIB: usize = 1 << 20;

fn qemu_img(home: &Path, words: &str) -> String {
    program(home, "qemu-img", &words.split(' ').collect::<Vec<_>>())
}

/// Writes patterns into an image at odd places, past the page cache or not, and punches some of them out again.
fn exercise(home: &Path, image: &str, cache: &str) {
    let mut commands = vec!["discard 5M 2M".to_owned(), "write -z 9M 64k".to_owned()];
    for number in 1..sized(60, 600) {
        let (at, length) = (number * 7_717 % 31_000 * 1024, number * 13 % 200 + 1);
        commands.push(format!("write -P {} {at} {length}k", number % 255 + 1));
        if number % 20 == 0 {
            commands.push(format!("discard {}k 256k", at / 1024 / 64 * 64));
            commands.push("flush".to_owned());
        }
    }
    let mut args = vec!["-t", cache, "-f", "qcow2", "-d", "unmap"];
    for command in &commands {
        args.extend(["-c", command]);
    }
    args.push(image);
    let said = program(home, "qemu-io", &args);
    assert!(!said.contains("failed"), "{said}");
}

/// The same image in several forms made in several ways is the same to QEMU.
fn convert(home: &Path, outside: &Path) {
    let outside = outside.display();
    for (name, options) in [
        ("plain.qcow2", ""),
        ("meta.qcow2", "-o preallocation=metadata,cluster_size=4k "),
        ("full.qcow2", "-o preallocation=falloc,lazy_refcounts=on "),
    ] {
        qemu_img(home, &format!("create -q -f qcow2 {options}{name} 32M"));
        let cache = if name == "full.qcow2" { "none" } else { "writeback" };
        exercise(home, name, cache);
        qemu_img(home, &format!("check -q -f qcow2 {name}"));
        qemu_img(home, &format!("convert -f qcow2 -O raw -S 4k {name} {outside}/{name}.raw"));
        qemu_img(home, &format!("convert -f qcow2 -O raw -t none -T none -W {name} {name}.raw"));
        qemu_img(home, &format!("convert -f raw -O qcow2 -c {name}.raw {name}.small"));
        qemu_img(home, &format!("create -q -f qcow2 -b {name} -F qcow2 {name}.over"));
        qemu_img(home, &format!("snapshot -q -c before {name}.over"));
        exercise(home, &format!("{name}.over"), "none");
        qemu_img(home, &format!("snapshot -q -a before {name}.over"));
    }
}

fn compare(home: &Path, outside: &Path) {
    let outside = outside.display();
    for name in ["plain.qcow2", "meta.qcow2", "full.qcow2"] {
        for (other, format) in [("raw", "raw"), ("small", "qcow2"), ("over", "qcow2")] {
            let base = format!("{outside}/{name}.raw");
            qemu_img(home, &format!("compare -q -f raw -F {format} {base} {name}.{other}"));
        }
        for image in [name.to_owned(), format!("{name}.small"), format!("{name}.over")] {
            qemu_img(home, &format!("check -q -f qcow2 {image}"));
        }
    }
}

#[test]
fn images_of_qemu_are_made_converted_and_compared() {
    needs!(Root, Fuse, Program("qemu-img"), Program("qemu-io"));
    for mode in MODES {
        let host = host_with_home(mode);
        let home = host.home("web01");
        convert(&home, host.scratch().path());
        compare(&home, host.scratch().path());
        remount(&host, mode);
        compare(&home, host.scratch().path());
    }
}

/// A guest from an overlay in the home, with QEMU's way to write to it; the job must end well.
fn boot(host: &Host, how: &str, job: &str) -> Vec<String> {
    let overlay = host.home("web01").join("root.qcow2");
    let drive = format!("if=none,id=root,file={},format=qcow2,{how}", overlay.display());
    Guest::boot_with(&["-drive", &drive, "-device", "virtio-blk-pci,drive=root"], job).finish()
}

#[test]
fn a_guest_runs_from_an_image_in_the_home() {
    needs!(Root, Fuse, Program("qemu-system-x86_64"), Program("qemu-img"));
    let host = host_with_home("--shared");
    let base = guest::files().disk.to_str().unwrap();
    qemu_img(&host.home("web01"), &format!("create -q -f qcow2 -b {base} -F raw root.qcow2"));
    let ways = [
        ("--shared", "cache=none,aio=native"),
        ("--exclusive", "cache=none,aio=io_uring,discard=unmap"),
        ("--exclusive", "cache=writeback,aio=threads"),
        ("--shared", "cache=writeback,aio=threads"),
    ];
    // Each finds what the one before has written.
    let ways = &ways[..usize::try_from(sized(2, 4)).unwrap()];
    for (number, (mode, how)) in ways.iter().enumerate() {
        remount(&host, mode);
        if number > 0 {
            let report = boot(&host, how, "coffer.do=verify coffer.count=4");
            assert!(report.contains(&"verified 4".into()), "{mode} {how}: {report:?}");
        }
        if number + 1 < ways.len() {
            let report = boot(&host, how, "coffer.do=load coffer.count=4");
            assert!(report.contains(&"load done 4".into()), "{mode} {how}: {report:?}");
        }
        qemu_img(&host.home("web01"), "check -q -f qcow2 root.qcow2");
    }
}

/// A file system in a file, mounted by a loop device until it is dropped.
struct Loop(PathBuf);

impl Loop {
    fn mount(image: &Path, point: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&point).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "ext4", "-o", options]).arg(image).arg(&point);
        run_command(command, None, wait::PROGRAM).ok();
        Self(point)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Writes files on it, some of them synced, and removes others.
fn fill(point: &Path, seed: u32) {
    for number in 0..sized(40, 120) {
        let folder = point.join(format!("d{}", number % 5));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("f{seed}-{number}"));
        write_pattern(&path, usize::try_from(number * 4093 % 300_000).unwrap(), seed + number);
        if number % 4 == 0 {
            fs::File::open(&path).unwrap().sync_all().unwrap();
        }
        if number % 7 == 3 {
            fs::remove_file(&path).unwrap();
        }
    }
}

fn verify(point: &Path, seed: u32) {
    for number in (0..sized(40, 120)).filter(|number| number % 7 != 3) {
        let path = point.join(format!("d{}/f{seed}-{number}", number % 5));
        let size = usize::try_from(number * 4093 % 300_000).unwrap();
        assert!(fs::read(&path).unwrap() == pattern(size, seed + number), "{}", path.display());
    }
}

#[test]
fn a_file_system_on_a_loop_device_stays_clean() {
    needs!(Root, Fuse, Loop, Program("mkfs.ext4"), Program("e2fsck"), Program("mount"));
    for mode in MODES {
        let host = host_with_home(mode);
        let (image, point) = (host.home("web01").join("fs.img"), host.scratch().join("point"));
        let file = fs::File::create_new(&image).unwrap();
        file.set_len(u64::try_from(64 * MIB).unwrap()).unwrap();
        drop(file);
        program(host.scratch().path(), "mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        for (seed, options) in [(1, "loop"), (2, "loop,discard"), (3, "loop,data=journal")] {
            let mounted = Loop::mount(&image, point.clone(), options);
            fill(&mounted.0, seed * 1000);
            (1..=seed).for_each(|seed| verify(&mounted.0, seed * 1000));
            drop(mounted);
            let said = run("e2fsck", &["-f", "-n", image.to_str().unwrap()], wait::PROGRAM);
            assert_eq!(said.code, 0, "{mode} {options}: {said}");
            remount(&host, mode);
        }
        let mounted = Loop::mount(&image, point, "loop,ro");
        (1..=3).for_each(|seed| verify(&mounted.0, seed * 1000));
    }
}
