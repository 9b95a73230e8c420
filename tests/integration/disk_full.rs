//! A store that fills up blocks publishers, lets consumers go on, and loses nothing.

use crate::support::stomp::{Frame, Stomp};
use crate::support::{Node, Pair};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use understudy_client::{AckMode, Client, Error, Message};

const MESSAGES: usize = 3_000;
const BODY_BYTES: usize = 60_000;

fn body(number: usize) -> String {
    format!("{number:>BODY_BYTES$}")
}

#[test]
fn a_full_store_blocks_publishers_until_consumers_have_made_room() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.configure("[limits]\ninflight_bytes_max = 4194304\n[storage]\nmap_bytes_max = 134217728\nfree_bytes_min = 50331648\n");
    node.start_serving();
    let address = node.ports.stomp.clone();
    let publisher = std::thread::spawn(move || {
        Stomp::connect(&address).publish("/queue/big", (0..MESSAGES).map(body));
    });
    node.wait("a disk alarm", |status| status["disk_alarm"] == true);
    // 180 MB do not fit into a map of 128: it comes only as this consumer makes room.
    let mut consumer = Stomp::connect(&node.ports.stomp);
    let bodies = consumer.consume("/queue/big", MESSAGES);
    assert!(bodies.into_iter().eq((0..MESSAGES).map(body)));
    publisher.join().unwrap();
    node.wait("the end of the alarm", |status| status["disk_alarm"] == false);
}

/// The slave's store is the smaller one: the master's publishers must wait for it.
#[test]
fn a_slave_that_fills_up_blocks_the_masters_publishers_and_stays_in_sync() {
    let mut pair = Pair::new("", "");
    pair.slave.configure("[limits]\ninflight_bytes_max = 4194304\n[storage]\nmap_bytes_max = 134217728\nfree_bytes_min = 50331648\nretain_bytes = 0\n");
    pair.start_in_sync();
    let address = pair.master.ports.stomp.clone();
    let publisher = std::thread::spawn(move || {
        Stomp::connect(&address).publish("/queue/big", (0..MESSAGES).map(body));
    });
    pair.master.wait("a disk alarm", |status| status["disk_alarm"] == true);
    assert!(pair.master.log().contains("the slave is low on disk"), "{}", pair.master.log());
    assert!(!pair.master.log().contains("low on disk: publishers wait"));
    let mut consumer = Stomp::connect(&pair.master.ports.stomp);
    let bodies = consumer.consume("/queue/big", MESSAGES);
    assert!(bodies.into_iter().eq((0..MESSAGES).map(body)));
    publisher.join().unwrap();
    pair.master.wait("the end of the alarm", |status| status["disk_alarm"] == false);
    assert_eq!(pair.master.status().unwrap()["state"], "in-sync");
}

/// A small file system, undone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where nothing may be mounted.
    fn mount(path: &Path) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=134217728", "understudy-test"];
        let mounted = Command::new("mount").args(mount).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }

    /// Something else takes the room, but for so much.
    fn fill(&self, spare_bytes: u64) {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let zeros = vec![0; (stat.f_bavail * stat.f_frsize - spare_bytes) as usize];
        std::fs::write(self.0.join("ballast"), zeros).unwrap();
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_master_hands_over_to_a_slave_with_room_and_back_only_once_it_has_some() {
    let mut pair = Pair::new("", "");
    let mounted = [&pair.master, &pair.slave].map(|node| SmallDisk::mount(&node.data_dir()));
    let [Some(of_master), Some(of_slave)] = mounted else {
        println!("not run: nothing may be mounted here");
        return;
    };
    for node in [&mut pair.master, &mut pair.slave] {
        node.configure("[limits]\ninflight_bytes_max = 4194304\n[storage]\nmap_bytes_max = 1073741824\nfree_bytes_min = 33554432\n");
    }
    pair.start_in_sync();
    let bodies = || (0..100).map(|number| number.to_string());
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/kept", bodies());
    of_master.fill(6 << 20);
    pair.slave.wait("the master", |status| {
        status["serving"] == true && status["state"] == "in-sync" && status["disk_alarm"] == true
    });
    let says = |log: String| log.matches("it is to lead").count();
    assert_eq!([says(pair.master.log()), says(pair.slave.log())], [1, 0]);
    // Who was left because it is full is not handed back to, though this one gets full, too. What
    // is left takes the settles.
    of_slave.fill(6 << 20);
    let mut consumer = Stomp::connect(&pair.slave.ports.stomp);
    assert!(consumer.consume("/queue/kept", 100).into_iter().eq(bodies()));
    pair.slave.wait_log("nearly out of disk");
    // Time enough for the beats by which it would hear of room that is not there.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(says(pair.slave.log()), 0);
    assert_eq!(pair.slave.status().unwrap()["serving"], true);
    of_master.empty();
    pair.master.wait("the master again", |status| {
        status["serving"] == true && status["state"] == "in-sync"
    });
    of_slave.empty();
    pair.master.wait("the end of the alarm", |status| status["disk_alarm"] == false);
    Stomp::connect(&pair.master.ports.stomp).publish("/queue/kept", bodies());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_that_rejects_refuses_stomp_and_native_publishers() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::standalone(directory.path());
    node.configure("[limits]\ninflight_bytes_max = 4194304\n[storage]\nmap_bytes_max = 134217728\nfree_bytes_min = 50331648\nalarm_policy = \"reject\"\n");
    tokio::task::block_in_place(|| node.start_serving());
    let client = Client::connect(&format!("failover:(tcp://{})", node.ports.native)).await.unwrap();
    let body = body(1).repeat(16);
    let mut publisher = Stomp::connect(&node.ports.stomp);
    let (stored, error) = publish_until_refused(&mut publisher, &body);
    assert!(error.body.contains("the node is low on disk"), "{error:?}");
    let is_refusal = |error: &Error| match error {
        Error::Refused { code: 406, text } => text.contains("the node is low on disk"),
        _ => false,
    };
    let error = client.publish(Message::to_queue("big", "more")).await.unwrap_err();
    assert!(is_refusal(&error), "{error:?}");
    let first = client.get("big", AckMode::Manual).await.unwrap().unwrap();
    let mut transaction = client.transaction();
    transaction.settle(&first);
    transaction.publish(Message::to_queue("big", "more")).unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert!(is_refusal(&error), "{error:?}");
    // The connection that was told goes on: it takes all there is, and may publish then.
    first.settle_confirmed().await.unwrap();
    for _ in 1..stored {
        let delivery = client.get("big", AckMode::Auto).await.unwrap().unwrap();
        assert!(delivery.body() == body.as_bytes());
    }
    assert!(client.get("big", AckMode::Auto).await.unwrap().is_none());
    tokio::task::block_in_place(|| {
        node.wait("the end of the alarm", |status| status["disk_alarm"] == false);
    });
    client.publish(Message::to_queue("big", "more")).await.unwrap();
}

/// How many the queue took, and what the next one was answered with.
fn publish_until_refused(publisher: &mut Stomp, body: &str) -> (usize, Frame) {
    for stored in 0..MESSAGES {
        publisher.send(&format!(
            "SEND\ndestination:/queue/big\npersistent:true\nreceipt:{stored}\n\n{body}"
        ));
        let answer = publisher.receive();
        if answer.command != "RECEIPT" {
            assert_eq!(answer.command, "ERROR");
            return (stored, answer);
        }
    }
    panic!("never refused");
}
