//! A TCP connection's way between two nodes, which can be cut: then nothing arrives, no end of a
//! connection either. Connections that were cut are dead for good when the wire is healed. It can
//! also be slow, or hold back what goes one way: that comes when the wire is healed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub struct Wire {
    pub address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Odd: cut. Rises with each cut and each heal.
    phase: AtomicU64,
    /// What goes to, and what comes from the target is held back.
    held: [AtomicBool; 2],
    delay_ms: AtomicU64,
}

impl State {
    fn phase(&self) -> u64 {
        self.phase.load(Ordering::SeqCst)
    }
}

/// Seen from who dials.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    ToTarget,
    FromTarget,
}

const POLL: Duration = Duration::from_millis(20);

impl Wire {
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let (target, shared) = (target.to_owned(), state.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let (target, state) = (target.clone(), shared.clone());
                std::thread::spawn(move || carry(near, &target, &state));
            }
        });
        Self { address, state }
    }

    pub fn cut(&self) {
        self.state.phase.fetch_or(1, Ordering::SeqCst);
    }

    pub fn hold_back(&self, way: Way) {
        self.state.held[way as usize].store(true, Ordering::SeqCst);
    }

    /// Whatever passes takes so much longer.
    pub fn slow_down(&self, delay_ms: u64) {
        self.state.delay_ms.store(delay_ms, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        let phase = self.state.phase();
        if phase % 2 == 1 {
            self.state.phase.store(phase + 1, Ordering::SeqCst);
        }
        self.state.held.iter().for_each(|held| held.store(false, Ordering::SeqCst));
        self.slow_down(0);
    }
}

fn carry(near: TcpStream, target: &str, state: &Arc<State>) {
    let born = state.phase();
    if born % 2 == 1 {
        // Accepted and never answered, as far as who dials can tell.
        while state.phase() == born {
            std::thread::sleep(POLL);
        }
        return;
    }
    let Ok(far) = TcpStream::connect(target) else { return };
    let (Ok(near_out), Ok(far_out)) = (near.try_clone(), far.try_clone()) else { return };
    let shared = state.clone();
    let back = std::thread::spawn(move || pump(far, near_out, &shared, born, Way::FromTarget));
    pump(near, far_out, state, born, Way::ToTarget);
    let _ = back.join();
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State, born: u64, way: Way) {
    let _ = from.set_read_timeout(Some(POLL));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer);
        let delay_ms = state.delay_ms.load(Ordering::SeqCst);
        if delay_ms > 0 && matches!(read, Ok(length) if length > 0) {
            std::thread::sleep(Duration::from_millis(delay_ms));
        }
        while state.phase() == born + 1
            || (state.phase() == born && state.held[way as usize].load(Ordering::SeqCst))
        {
            std::thread::sleep(POLL);
        }
        if state.phase() != born {
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
