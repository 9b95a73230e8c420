//! With an arbiter one node serves at each moment: both are asked, all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) struct Watch {
    ended: Arc<AtomicBool>,
    /// A process that was stopped tells what it knew before.
    pub(crate) pauses: Arc<AtomicBool>,
    thread: Option<JoinHandle<Option<String>>>,
}

impl Watch {
    pub(crate) fn start(urls: [String; 2]) -> Self {
        let (ended, pauses) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (end, pause) = (ended.clone(), pauses.clone());
        let thread = std::thread::spawn(move || {
            let serves = |url: &String| {
                let status = understudy::cli::status::fetch(url).ok()?;
                (status["serving"] == true).then(|| status["epoch"].clone())
            };
            while !end.load(Ordering::SeqCst) {
                for [one, other] in [[0, 1], [1, 0]] {
                    // The same mastership before and behind the other one's.
                    let before = serves(&urls[one]);
                    let between = before.as_ref().and_then(|_| serves(&urls[other]));
                    let behind = between.as_ref().and_then(|_| serves(&urls[one]));
                    if behind.is_some() && behind == before && !pause.load(Ordering::SeqCst) {
                        return Some(format!("both serve, in epochs {before:?} and {between:?}"));
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            None
        });
        Self { ended, pauses, thread: Some(thread) }
    }

    /// Whether both served at one time.
    pub(crate) fn end(mut self) -> Option<String> {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.take().and_then(|thread| thread.join().unwrap())
    }
}
