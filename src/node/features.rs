//! What the log may hold, and whether this program can read it.

use super::{Node, Outputs};
use understudy_model::{Command, Features};

impl Node {
    pub(super) fn switch_on(&mut self, features: Features) {
        let command = Command::FeaturesOn(features);
        self.inflight.open.push(|out| command.encode(out));
    }

    /// A newer program has led, and a log of its time came in before this one could refuse it.
    pub(super) fn look_at_features(&mut self, out: &mut Outputs) {
        let features = self.broker.features();
        if !self.options.features.contains(features) {
            let unknown = features.without(self.options.features);
            out.stop = Some(Err(unknown_features(unknown)));
        }
        self.backend.features_on(features);
    }
}

/// Why a node cannot go on with its data.
pub(crate) fn unknown_features(unknown: Features) -> String {
    format!(
        "the data needs features {unknown}, which this program does not know: a newer one was here"
    )
}
