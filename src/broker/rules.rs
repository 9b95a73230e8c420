//! What a queue's arguments and its policy say about its messages, parsed once.

use understudy_model::{Table, Text, Value};

/// What happens when a queue is longer than it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    /// Rejects, and dead-letters what it rejects.
    RejectPublishDeadLetter,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct QueueRules {
    pub(crate) message_ttl_ms: Option<u64>,
    pub(crate) expires_ms: Option<u64>,
    /// Ready messages.
    pub(crate) length_max: Option<u64>,
    /// Bodies of ready messages.
    pub(crate) length_bytes_max: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) dead_letter_exchange: Option<Text>,
    /// Instead of the message's own.
    pub(crate) dead_letter_key: Option<Text>,
    pub(crate) single_active_consumer: bool,
    /// Higher ones count as this.
    pub(crate) priority_max: Option<u8>,
    /// Returned more often than this, a message is dead.
    pub(crate) delivery_limit: Option<u32>,
    /// Returns are counted, in the log, and told with every delivery (quorum queues).
    pub(crate) counts_returns: bool,
    /// A message must be looked at when it enters.
    pub(crate) notes_messages: bool,
}

impl QueueRules {
    /// `arguments` as declared, with `x-` in front of their names, and the definition of the policy
    /// that holds. Of two numbers the lower counts; of anything else, the argument.
    pub(crate) fn new(arguments: &Table, policy: Option<&Table>) -> Self {
        let argument = |name: &str| {
            let is = |given: &str| given.strip_prefix("x-") == Some(name);
            arguments.0.iter().find(|(given, _)| is(given)).map(|(_, value)| value)
        };
        let of_policy = |name: &str| policy.and_then(|definition| definition.get(name));
        let number = |name: &str| {
            let both = [argument(name), of_policy(name)].into_iter().flatten();
            both.filter_map(Value::as_i64).filter_map(|number| u64::try_from(number).ok()).min()
        };
        let small = |name: &str| argument(name).and_then(Value::as_i64).filter(|n| *n > 0);
        let text = |name: &str| argument(name).or_else(|| of_policy(name)).and_then(Value::as_str);
        let mut rules = Self {
            message_ttl_ms: number("message-ttl"),
            expires_ms: number("expires"),
            length_max: number("max-length"),
            length_bytes_max: number("max-length-bytes"),
            overflow: match text("overflow") {
                Some("reject-publish") => Overflow::RejectPublish,
                Some("reject-publish-dlx") => Overflow::RejectPublishDeadLetter,
                _ => Overflow::DropHead,
            },
            dead_letter_exchange: text("dead-letter-exchange").map(Text::from),
            dead_letter_key: text("dead-letter-routing-key").map(Text::from),
            single_active_consumer: argument("single-active-consumer")
                .and_then(Value::as_bool)
                .unwrap_or_default(),
            priority_max: small("max-priority").map(|max| u8::try_from(max).unwrap_or(u8::MAX)),
            delivery_limit: number("delivery-limit").map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            counts_returns: argument("queue-type").and_then(Value::as_str) == Some("quorum"),
            notes_messages: false,
        };
        rules.counts_returns |= rules.delivery_limit.is_some();
        rules.notes_messages = rules.message_ttl_ms.is_some()
            || rules.length_bytes_max.is_some()
            || rules.priority_max.is_some();
        rules
    }

    /// Whether a publish can be refused because the queue is full.
    pub(crate) fn rejects(&self) -> bool {
        self.overflow != Overflow::DropHead
            && (self.length_max.is_some() || self.length_bytes_max.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, Value)]) -> Table {
        let mut table = Table::default();
        entries.iter().for_each(|(name, value)| table.push(name, value.clone()));
        table
    }

    #[test]
    fn the_lower_number_and_the_argument_win() {
        let arguments = table(&[
            ("x-message-ttl", Value::I32(500)),
            ("x-max-length", Value::I64(7)),
            ("x-dead-letter-exchange", Value::text("own")),
            ("x-single-active-consumer", Value::Bool(true)),
        ]);
        let policy = table(&[
            ("message-ttl", Value::I64(100)),
            ("max-length", Value::I64(9)),
            ("dead-letter-exchange", Value::text("policy")),
            ("overflow", Value::text("reject-publish")),
        ]);
        let rules = QueueRules::new(&arguments, Some(&policy));
        let expected = QueueRules {
            message_ttl_ms: Some(100),
            length_max: Some(7),
            overflow: Overflow::RejectPublish,
            dead_letter_exchange: Some(Text::from_static("own")),
            single_active_consumer: true,
            notes_messages: true,
            ..QueueRules::default()
        };
        assert_eq!(rules, expected);
        assert_eq!(QueueRules::new(&Table::default(), None), QueueRules::default());
    }
}
