use super::client::Client;
use super::server;
use crate::config::{ArbiterKind, ArbiterSettings};
use crate::peer::Security;
use std::path::Path;
use understudy_model::{Epoch, NodeId};
use understudy_replication::{ArbiterAnswer, ArbiterCall, Register};

fn settings(password: &str) -> ArbiterSettings {
    ArbiterSettings {
        kind: ArbiterKind::None,
        register: "pair".into(),
        user: "arbiter".into(),
        password: password.into(),
        tls: None,
        lease_ms: 2_000,
    }
}

async fn arbiter(directory: &Path) -> String {
    server::start_for_test(&settings("secret"), directory).await
}

fn client(address: &str, node: &str, password: &str) -> Client {
    Client::new(&settings(password), address, Security::clear(), node)
}

fn swap(expected: u64, leader: u128) -> ArbiterCall {
    let epoch = Epoch { number: expected + 1, generation: 1 };
    let register = Register { cluster: 1, epoch, leader: NodeId(leader), slave: None };
    ArbiterCall::Swap { expected, register, lease_ms: 60_000, force: false }
}

fn is_done(answer: &ArbiterAnswer) -> bool {
    matches!(answer, ArbiterAnswer::Told { done: true, .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_restart_with_the_lease() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = client(&arbiter(directory.path()).await, "one", "secret");
    assert!(is_done(&one.call(&swap(0, 1)).await.unwrap()));
    // Another process over a copy of the file: the first one has not been told to stop.
    let copy = copy_of(directory.path());
    let mut two = client(&arbiter(copy.path()).await, "two", "secret");
    let ArbiterAnswer::Told { held, .. } = two.call(&ArbiterCall::Read).await.unwrap() else {
        panic!("no answer");
    };
    let held = held.unwrap();
    assert_eq!((held.version, held.register.leader), (1, NodeId(1)));
    assert!(held.lease_ms > 50_000);
    assert!(!is_done(&two.call(&swap(1, 2)).await.unwrap()), "the lease is held once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut one = client(&arbiter(directory.path()).await, "one", "secret");
    one.call(&swap(0, 1)).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(directory.path().join("registers")).unwrap();
    bytes[10] ^= 1;
    std::fs::write(copy.path().join("registers"), bytes).unwrap();
    let error = super::store::Store::open(copy.path(), 0).err().unwrap();
    assert!(format!("{error:#}").contains("checksum"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let address = arbiter(directory.path()).await;
    let error = client(&address, "one", "wrong").call(&ArbiterCall::Read).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_new_connection_cuts_off_what_its_old_one_still_holds() {
    let directory = tempfile::tempdir().unwrap();
    let address = arbiter(directory.path()).await;
    let (mut old, mut new) = (client(&address, "one", "secret"), client(&address, "one", "secret"));
    old.call(&ArbiterCall::Read).await.unwrap();
    new.call(&ArbiterCall::Read).await.unwrap();
    assert!(old.call(&swap(0, 1)).await.is_err());
    let other = client(&address, "two", "secret").call(&ArbiterCall::Read).await.unwrap();
    assert_eq!(other, ArbiterAnswer::Told { done: true, held: None });
    assert!(is_done(&new.call(&swap(0, 1)).await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_written_is_never_told() {
    let directory = tempfile::tempdir().unwrap();
    let address = arbiter(directory.path()).await;
    let mut one = client(&address, "one", "secret");
    assert!(is_done(&one.call(&swap(0, 1)).await.unwrap()));
    // In the way of the next save.
    let blocked = directory.path().join("registers.new");
    std::fs::create_dir(&blocked).unwrap();
    assert!(one.call(&swap(1, 1)).await.is_err());
    std::fs::remove_dir(&blocked).unwrap();
    for call in [ArbiterCall::Read, swap(2, 1), swap(1, 1)] {
        assert!(client(&address, "one", "secret").call(&call).await.is_err(), "{call:?}");
        assert!(client(&address, "two", "secret").call(&call).await.is_err(), "{call:?}");
    }
    let (_, mut registers) =
        super::store::Store::open(copy_of(directory.path()).path(), 0).unwrap();
    let answer = registers.handle(0, &"pair".into(), &ArbiterCall::Read).0;
    let ArbiterAnswer::Told { held, .. } = answer else { panic!("no answer") };
    assert_eq!(held.unwrap().version, 1);
}

/// As a restart finds it.
fn copy_of(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(directory.join("registers"), copy.path().join("registers")).unwrap();
    copy
}
