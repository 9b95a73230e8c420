//! HAProxy in front of a pair, with the file that is shipped.

use super::{Pair, Ports};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub struct HaProxy(Child);

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl HaProxy {
    /// Runs conf/haproxy.cfg, with the addresses of this pair and `own` ones for clients.
    pub fn in_front_of(pair: &Pair, own: &Ports) -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/haproxy.cfg");
        let mut text = std::fs::read_to_string(shipped).unwrap();
        for (from, to) in [("5682", &own.amqp), ("61623", &own.stomp), ("61626", &own.native)] {
            text = text.replace(&format!("127.0.0.1:{from}"), to);
        }
        for (host, node) in [("192.0.2.1", &pair.master), ("192.0.2.2", &pair.slave)] {
            let ports = &node.ports;
            let protocols =
                [("5672", &ports.amqp), ("61613", &ports.stomp), ("61616", &ports.native)];
            for (port, to) in protocols {
                let check = Ports::port(&ports.http);
                let from = format!("{host}:{port} port 15672");
                assert!(text.contains(&from), "{from}");
                text = text.replace(&from, &format!("{to} port {check}"));
            }
        }
        let path = pair.directory.path().join("haproxy.cfg");
        std::fs::write(&path, text).unwrap();
        let log = std::fs::File::create(pair.directory.path().join("haproxy.log")).unwrap();
        let child = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }
}
