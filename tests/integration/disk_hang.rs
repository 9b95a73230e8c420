//! A disk that hangs: a file system of its own, frozen while the node writes to it.

use crate::support::Pair;
use crate::support::stomp::Stomp;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const FILE_SYSTEM_BYTES: u64 = 256 << 20;
const STORAGE: &str = "[limits]\ninflight_bytes_max = 1048576\n[storage]\nmap_bytes_max = 67108864\n\
                       free_bytes_min = 4194304\ndisk_stall_ms = 1000\n";

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let output = Command::new(program).args(arguments).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

/// Undone when it is dropped, whatever happened.
struct FileSystem(PathBuf);

impl FileSystem {
    /// None where loop devices cannot be mounted.
    fn mount(image: &Path, path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        std::fs::File::create(image).unwrap().set_len(FILE_SYSTEM_BYTES).unwrap();
        if !run("mkfs.ext4", &["-q", "-F"], image) {
            return None;
        }
        let image = image.to_str().unwrap();
        run("mount", &["-o", "loop", image], path).then(|| Self(path.to_owned()))
    }

    /// From now on every write waits, and whoever waits cannot be killed.
    fn freeze(&self) {
        assert!(run("fsfreeze", &["-f"], &self.0));
    }

    fn thaw(&self) {
        assert!(run("fsfreeze", &["-u"], &self.0));
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        run("fsfreeze", &["-u"], &self.0);
        run("umount", &["-l"], &self.0);
    }
}

/// None where loop devices cannot be mounted.
fn start_on_own_disk(pair: &mut Pair) -> Option<FileSystem> {
    let image = pair.directory.path().join("image");
    let disk = FileSystem::mount(&image, &pair.master.data_dir());
    if disk.is_none() {
        println!("not run: no file system can be mounted from a loop device here");
        return None;
    }
    pair.master.configure(STORAGE);
    pair.start_in_sync();
    disk
}

#[test]
fn a_master_whose_disk_hangs_ends_and_its_slave_takes_over() {
    let mut pair = Pair::new("", "");
    let Some(disk) = start_on_own_disk(&mut pair) else { return };
    let mut publisher = Stomp::connect(&pair.master.ports.stomp);
    let bodies = || (0..200).map(|number| number.to_string());
    publisher.publish("/queue/hung", bodies());
    disk.freeze();
    let frozen = Instant::now();
    assert!(!publisher.try_publish("/queue/hung", "unanswered"));
    assert!(frozen.elapsed() < Duration::from_secs(10), "its connection is closed");
    pair.slave.wait("serving", |status| status["serving"] == true);
    // No silence had to pass: a port that refuses is evidence, though the process cannot end yet.
    let log = pair.slave.log();
    assert!(log.contains("the master's process is gone"), "{log}");
    assert!(!log.contains("the master is silent"), "{log}");
    // The one that was not answered may have reached the slave.
    let held = pair.slave.status().unwrap()["counts"]["messages"].as_u64().unwrap() as usize;
    let mut consumer = Stomp::connect(&pair.slave.ports.stomp);
    let consumed = consumer.consume("/queue/hung", held);
    assert!(consumed.into_iter().take(200).eq(bodies()) && held <= 201, "{held}");
    assert!(pair.master.is_running(), "a thread that waits for its disk keeps it");
    disk.thaw();
    assert_eq!(pair.master.wait_exit().code(), Some(70));
    let log = pair.master.log();
    assert!(log.contains("the disk hangs") && log.contains("storage.disk_stall_ms"), "{log}");
    pair.master.start();
    pair.master.wait_in_sync();
    pair.slave.wait_in_sync();
}

/// A slave that nobody waits for, or a master without one, has nobody to make way for.
#[test]
fn who_is_not_replaced_waits_for_its_disk() {
    let mut pair = Pair::new("", "shutdown_on_master_failure = true\n");
    let Some(disk) = start_on_own_disk(&mut pair) else { return };
    let mut publisher = Stomp::connect(&pair.master.ports.stomp);
    publisher.publish("/queue/hung", ["before".to_owned()]);
    disk.freeze();
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publisher.publish("/queue/hung", ["during".to_owned()]));
        std::thread::sleep(Duration::from_secs(2));
        assert!(!publishing.is_finished() && pair.master.is_running());
        disk.thaw();
        publishing.join().unwrap();
    });
    assert!(!pair.master.log().contains("the disk hangs"), "{}", pair.master.log());
}
