//! Heart-beats: who has to show life how often.

use crate::{error::StompError, options::StompOptions};

/// The shortest interval the server offers: below it heart-beats are mere load.
const INTERVAL_MS_MIN: u64 = 100;

#[derive(Debug)]
pub(crate) struct Heartbeat {
    /// What CONNECTED says: the server can send, the server wants.
    pub(crate) offered: (u64, u64),
    /// Agreed intervals; 0: none.
    send_ms: u64,
    silence_ms_max: u64,
    last_sent_ms: u64,
    last_received_ms: u64,
}

impl Heartbeat {
    /// `header` is the client's `heart-beat`: it can send, it wants.
    pub(crate) fn agree(
        header: Option<&str>,
        options: &StompOptions,
        now_ms: u64,
    ) -> Result<Self, StompError> {
        let (can, wants) = match header {
            None => (0, 0),
            Some(header) => parse(header)?,
        };
        let offer = |asked: u64| match asked {
            0 => 0,
            asked => asked.max(INTERVAL_MS_MIN).min(options.heartbeat_ms),
        };
        let offered = (offer(wants), offer(can));
        let agreed = |offer: u64, client: u64| if offer == 0 { 0 } else { offer.max(client) };
        let receive_ms = agreed(offered.1, can);
        Ok(Self {
            offered,
            send_ms: agreed(offered.0, wants),
            silence_ms_max: (receive_ms as f64 * options.heartbeat_grace.max(1.0)) as u64,
            last_sent_ms: now_ms,
            last_received_ms: now_ms,
        })
    }

    pub(crate) fn sent(&mut self, now_ms: u64) {
        self.last_sent_ms = now_ms;
    }

    pub(crate) fn received(&mut self, now_ms: u64) {
        self.last_received_ms = now_ms;
    }

    /// When an EOL has to be sent, if nothing else was: a quarter early, for its way takes time
    /// and not every client has patience.
    fn send_at(&self) -> Option<u64> {
        (self.send_ms > 0)
            .then(|| self.last_sent_ms.saturating_add(self.send_ms - self.send_ms / 4))
    }

    fn lost_at(&self) -> Option<u64> {
        let silence = self.silence_ms_max;
        (silence > 0).then(|| self.last_received_ms.saturating_add(silence))
    }

    pub(crate) fn is_lost(&self, now_ms: u64) -> bool {
        self.lost_at().is_some_and(|at| at <= now_ms)
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.send_at().into_iter().chain(self.lost_at()).min()
    }
}

fn parse(header: &str) -> Result<(u64, u64), StompError> {
    let interval = |text: &str| text.trim().parse::<u32>().ok().map(u64::from);
    let pair =
        header.split_once(',').and_then(|(can, wants)| Some((interval(can)?, interval(wants)?)));
    pair.ok_or_else(|| StompError::invalid_header("heart-beat", "two numbers with a comma"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(header: &str) -> Heartbeat {
        Heartbeat::agree(Some(header), &StompOptions::default(), 1_000).unwrap()
    }

    #[test]
    fn intervals_are_the_larger_of_both_wishes() {
        assert_eq!(agree("0,0").deadline_ms(), None);
        let fast = agree("500,2000");
        assert_eq!(fast.offered, (2_000, 500));
        assert_eq!(fast.deadline_ms(), Some(1_000 + 1_000));
        let slow = agree("0,60000");
        assert_eq!(slow.offered, (10_000, 0));
        assert_eq!(slow.deadline_ms(), Some(1_000 + 45_000));
        assert_eq!(agree("1,0").offered, (0, 100));
    }

    #[test]
    fn silence_ends_it_and_traffic_defers_both() {
        let mut beat = agree("1000,1000");
        assert_eq!(beat.deadline_ms(), Some(1_750));
        beat.sent(1_750);
        assert_eq!(beat.deadline_ms(), Some(2_500));
        assert!(!beat.is_lost(2_999) && beat.is_lost(3_000));
        beat.received(2_999);
        assert!(!beat.is_lost(4_998));
    }

    #[test]
    fn nonsense_is_refused() {
        for header in ["", "1", "a,b", "-1,0", "1,2,3"] {
            assert!(Heartbeat::agree(Some(header), &StompOptions::default(), 0).is_err());
        }
    }
}
