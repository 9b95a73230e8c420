//! A TCP connection's way between two nodes, which can be cut: then nothing arrives, no end of a
//! connection either. Connections that were cut are dead for good when the wire is healed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub struct Wire {
    pub address: String,
    /// Odd: cut. Rises with each cut and each heal.
    phase: Arc<AtomicU64>,
}

const POLL: Duration = Duration::from_millis(20);

impl Wire {
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let phase = Arc::new(AtomicU64::new(0));
        let (target, shared) = (target.to_owned(), phase.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let (target, phase) = (target.clone(), shared.clone());
                std::thread::spawn(move || carry(near, &target, &phase));
            }
        });
        Self { address, phase }
    }

    pub fn cut(&self) {
        self.phase.fetch_or(1, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        let phase = self.phase.load(Ordering::SeqCst);
        self.phase.store((phase | 1) + 1, Ordering::SeqCst);
    }
}

fn carry(near: TcpStream, target: &str, phase: &Arc<AtomicU64>) {
    let born = phase.load(Ordering::SeqCst);
    if born % 2 == 1 {
        // Accepted and never answered, as far as who dials can tell.
        while phase.load(Ordering::SeqCst) == born {
            std::thread::sleep(POLL);
        }
        return;
    }
    let Ok(far) = TcpStream::connect(target) else { return };
    let (Ok(near_out), Ok(far_out)) = (near.try_clone(), far.try_clone()) else { return };
    let of_phase = phase.clone();
    let back = std::thread::spawn(move || pump(far, near_out, &of_phase, born));
    pump(near, far_out, phase, born);
    let _ = back.join();
}

fn pump(mut from: TcpStream, mut to: TcpStream, phase: &AtomicU64, born: u64) {
    let _ = from.set_read_timeout(Some(POLL));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer);
        while phase.load(Ordering::SeqCst) == born + 1 {
            std::thread::sleep(POLL);
        }
        if phase.load(Ordering::SeqCst) != born {
            break;
        }
        match read {
            Ok(0) => break,
            Ok(length) if to.write_all(&buffer[..length]).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
