//! Policies: optional arguments laid over queues and exchanges by name.

use crate::pattern::Pattern;
use std::collections::BTreeMap;
use understudy_model::{ApplyTo, PolicyRecord, TIME_TO_LIVE_MS_MAX, Table, Text, Value};

#[derive(Default)]
pub(crate) struct Policies {
    /// By vhost, then by name.
    by_vhost: BTreeMap<Text, BTreeMap<Text, Policy>>,
}

pub(crate) struct Policy {
    pub(crate) record: PolicyRecord,
    pattern: Option<Pattern>,
    pub(crate) definition: Table,
}

/// What a definition's value must be.
enum Kind {
    Text,
    /// A whole number from this to that.
    Number(i64, i64),
    OneOf(&'static [&'static str]),
}

const QUEUE_KEYS: [(&str, Kind); 10] = [
    ("message-ttl", Kind::Number(0, TIME_TO_LIVE_MS_MAX)),
    ("expires", Kind::Number(1, TIME_TO_LIVE_MS_MAX)),
    ("max-length", Kind::Number(0, i64::MAX)),
    ("max-length-bytes", Kind::Number(0, i64::MAX)),
    ("overflow", Kind::OneOf(&["drop-head", "reject-publish", "reject-publish-dlx"])),
    ("dead-letter-exchange", Kind::Text),
    ("dead-letter-routing-key", Kind::Text),
    ("delivery-limit", Kind::Number(0, i64::MAX)),
    ("queue-mode", Kind::OneOf(&["default", "lazy"])),
    ("queue-version", Kind::Number(1, 2)),
];
const EXCHANGE_KEYS: [(&str, Kind); 1] = [("alternate-exchange", Kind::Text)];

impl Policies {
    pub(crate) fn records(&self) -> impl Iterator<Item = &PolicyRecord> {
        self.by_vhost.values().flat_map(|policies| policies.values().map(|policy| &policy.record))
    }

    pub(crate) fn put(&mut self, record: PolicyRecord) {
        let policies = self.by_vhost.entry(record.vhost.clone()).or_default();
        let policy = Policy {
            pattern: Pattern::parse(&record.pattern).ok(),
            definition: Table::decode(&record.definition).unwrap_or_default(),
            record,
        };
        policies.insert(policy.record.name.clone(), policy);
    }

    pub(crate) fn clear(&mut self, vhost: &str, name: &str) {
        if let Some(policies) = self.by_vhost.get_mut(vhost) {
            policies.remove(name);
        }
    }

    pub(crate) fn contains(&self, vhost: &str, name: &str) -> bool {
        self.by_vhost.get(vhost).is_some_and(|policies| policies.contains_key(name))
    }

    pub(crate) fn vhost_deleted(&mut self, name: &str) {
        self.by_vhost.remove(name);
    }

    /// The one that holds for a queue or exchange: the highest priority among those that match,
    /// and among equals the first by name.
    pub(crate) fn effective(&self, vhost: &str, of: ApplyTo, name: &str) -> Option<&Policy> {
        let matching = self.by_vhost.get(vhost)?.values().filter(|policy| {
            let applies = policy.record.apply_to == ApplyTo::All || policy.record.apply_to == of;
            applies && policy.pattern.as_ref().is_some_and(|pattern| pattern.matches(name))
        });
        // `max_by_key` takes the last of equals.
        matching.rev().max_by_key(|policy| policy.record.priority)
    }
}

/// # Errors
/// What is wrong with the definition, in a sentence for its author.
pub(crate) fn check(record: &PolicyRecord) -> Result<(), String> {
    Pattern::parse(&record.pattern).map_err(|why| format!("pattern is invalid: {why}"))?;
    let definition = Table::decode(&record.definition).map_err(|error| error.to_string())?;
    if definition.0.is_empty() {
        return Err("the definition is empty".into());
    }
    for (name, value) in &definition.0 {
        let queue = QUEUE_KEYS.iter().find(|(key, _)| **key == **name);
        let exchange = EXCHANGE_KEYS.iter().find(|(key, _)| **key == **name);
        let Some((_, kind)) = queue.or(exchange) else {
            return Err(format!("[{name}] are not recognised policy settings"));
        };
        let applies = match record.apply_to {
            ApplyTo::All => true,
            ApplyTo::Queues => queue.is_some(),
            ApplyTo::Exchanges => exchange.is_some(),
        };
        if !applies {
            return Err(format!("{name} does not apply to {}", record.apply_to.name()));
        }
        check_value(kind, value).map_err(|wanted| format!("{name}: expected {wanted}"))?;
    }
    if definition.get("dead-letter-routing-key").is_some()
        && definition.get("dead-letter-exchange").is_none()
    {
        return Err("dead-letter-routing-key needs a dead-letter-exchange".into());
    }
    Ok(())
}

fn check_value(kind: &Kind, value: &Value) -> Result<(), String> {
    match kind {
        Kind::Text if value.as_str().is_some() => Ok(()),
        Kind::Text => Err("a text".into()),
        Kind::Number(from, to) => match value.as_i64() {
            Some(number) if (*from..=*to).contains(&number) => Ok(()),
            _ if *to == i64::MAX => Err(format!("a whole number from {from}")),
            _ => Err(format!("a whole number from {from} to {to}")),
        },
        Kind::OneOf(words) => match value.as_str() {
            Some(word) if words.contains(&word) => Ok(()),
            _ => Err(format!("one of {}", words.join(", "))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &'static str, pattern: &str, apply_to: ApplyTo, priority: i32) -> PolicyRecord {
        let mut definition = Table::default();
        definition.push("max-length", Value::I64(10));
        PolicyRecord {
            vhost: Text::from_static("/"),
            name: Text::from_static(name),
            pattern: Text::from(pattern),
            apply_to,
            priority,
            definition: definition.to_bytes(),
        }
    }

    #[test]
    fn the_highest_priority_that_matches_holds() {
        let mut policies = Policies::default();
        policies.put(policy("all", ".*", ApplyTo::All, 0));
        policies.put(policy("b", "^tmp", ApplyTo::Queues, 5));
        policies.put(policy("a", "^tmp", ApplyTo::Queues, 5));
        policies.put(policy("x", "^tmp", ApplyTo::Exchanges, 9));
        let of = |kind, name| {
            policies.effective("/", kind, name).map(|policy| policy.record.name.to_string())
        };
        assert_eq!(of(ApplyTo::Queues, "orders").as_deref(), Some("all"));
        assert_eq!(of(ApplyTo::Queues, "tmp.1").as_deref(), Some("a"));
        assert_eq!(of(ApplyTo::Exchanges, "tmp.1").as_deref(), Some("x"));
        assert!(policies.effective("other", ApplyTo::Queues, "tmp").is_none());
    }

    #[test]
    fn definitions_are_checked() {
        for (key, value, apply_to, expected) in [
            ("max-length", Value::I64(5), ApplyTo::Queues, None),
            ("max-length", Value::I64(-1), ApplyTo::Queues, Some("whole number")),
            ("max-length", Value::I64(5), ApplyTo::Exchanges, Some("does not apply")),
            ("overflow", Value::text("drop-tail"), ApplyTo::All, Some("one of")),
            ("alternate-exchange", Value::text("ae"), ApplyTo::Exchanges, None),
            ("max-priority", Value::I64(5), ApplyTo::Queues, Some("not recognised")),
            ("dead-letter-routing-key", Value::text("k"), ApplyTo::All, Some("needs")),
        ] {
            let mut definition = Table::default();
            definition.push(key, value);
            let record = PolicyRecord {
                definition: definition.to_bytes(),
                ..policy("p", ".*", apply_to, 0)
            };
            match (check(&record), expected) {
                (Ok(()), None) => {}
                (Err(said), Some(wanted)) => assert!(said.contains(wanted), "{key}: {said}"),
                (said, wanted) => panic!("{key}: {said:?}, expected {wanted:?}"),
            }
        }
    }
}
