use super::*;
use crate::cli::status::fetch;
use crate::handle::{ClientEvent, Measured, Overview};
use crate::inbox::ClientSender;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use understudy_replication::Status;

struct Fixture {
    address: String,
    serving: watch::Sender<bool>,
    _driver: mpsc::Receiver<ClientEvent>,
}

async fn start() -> Fixture {
    let (events, _driver) = ClientSender::new(Arc::default(), 1);
    let (serving, serving_seen) = watch::channel(false);
    let replication = Status { role: "slave", state: "in-sync", lag: 3, ..Status::default() };
    let overview = Overview { name: "two".into(), replication, queues: 5, ..Overview::default() };
    let opened = vec![("http", "127.0.0.1:15673".to_owned())];
    let users = watch::channel(Arc::new(Vec::new())).1;
    let node = NodeHandle {
        client_protocols: Vec::new(),
        measured: Measured::default(),
        events,
        overview: watch::channel(Arc::new(overview)).1,
        users: users.clone(),
        serving: serving_seen,
        listeners: watch::channel(opened).1,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let admin = Admin {
        node,
        auth: Authenticator::new(users).unwrap(),
        clock: Clock::start(),
        next_connection: Arc::default(),
        message_bytes_max: 1 << 20,
    };
    tokio::spawn(serve(listener, admin));
    Fixture { address, serving, _driver }
}

impl Fixture {
    async fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn health_follows_the_role() {
    let fixture = start().await;
    assert!(fixture.get("/api/health/live").await.starts_with("HTTP/1.1 200"));
    let answer = fixture.get("/api/health/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("in-sync"), "{answer}");
    fixture.serving.send_replace(true);
    assert!(fixture.get("/api/health/ready").await.starts_with("HTTP/1.1 200"));
    assert!(fixture.get("/api/nothing").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn status_reads_what_the_api_says() {
    let fixture = start().await;
    let url = format!("http://{}/", fixture.address);
    let status = tokio::task::spawn_blocking(move || fetch(&url)).await.unwrap().unwrap();
    assert_eq!(status["name"], "two");
    assert_eq!(status["role"], "slave");
    assert_eq!(status["peer"]["lag"], 3);
    assert_eq!(status["counts"]["queues"], 5);
    assert_eq!(status["listeners"]["http"], "127.0.0.1:15673");
}

#[tokio::test]
async fn a_process_that_waits_for_the_data_directory_tells_no_numbers_of_it() {
    let page = start().await.get("/metrics").await;
    assert!(page.contains("understudy_replication_role{role=\"slave\"} 1\n"), "{page}");
    assert!(page.contains("understudy_serving 0\n"), "{page}");
    for unknown in ["lsn", "queue", "global_messages", "commit"] {
        assert!(!page.contains(unknown), "{unknown}: {page}");
    }
}
