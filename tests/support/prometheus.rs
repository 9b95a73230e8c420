//! A strict reader of Prometheus's text format: what it accepts, every other one does.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) type Labels = BTreeMap<String, String>;

/// Samples by their name and labels.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    samples: BTreeMap<(String, Labels), f64>,
}

impl Metrics {
    /// Panics unless every sample follows its family's HELP and TYPE, no family comes twice, no
    /// series comes twice, and names are as they should be.
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.is_empty() || text.ends_with('\n'), "the last line does not end");
        let mut metrics = Self::default();
        let mut seen = BTreeSet::new();
        let (mut family, mut kind) = (String::new(), String::new());
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(is_name(name) && !help.is_empty(), "{line}");
                assert!(seen.insert(name.to_owned()), "a second family {name}");
                let begin = format!("# TYPE {name} ");
                kind = lines.next().and_then(|line| line.strip_prefix(&begin)).expect(line).into();
                assert!(["counter", "gauge", "histogram"].contains(&&*kind), "{line}: {kind}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                let next = lines.peek().expect("a family without samples");
                assert!(next.starts_with(name), "{next} in {name}");
                name.clone_into(&mut family);
                continue;
            }
            let (name, labels, value) = sample(line);
            let suffix = name.strip_prefix(&family).expect(line);
            let known =
                if kind == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
            assert!(known.contains(&suffix), "{line} in {family}");
            let series = (name, labels);
            assert!(metrics.samples.insert(series, value).is_none(), "twice: {line}");
        }
        metrics
    }

    /// Of the one sample of that name with at least these labels.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |all: &Labels| {
            labels.iter().all(|(label, value)| all.get(*label).is_some_and(|v| v == value))
        };
        let mut found = self.samples.iter().filter(|((known, all), _)| known == name && has(all));
        let value = found.next().map(|(_, value)| *value);
        assert!(found.next().is_none(), "several {name} {labels:?}");
        value
    }

    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|(name, _)| name.as_str()).collect()
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    while let Some(inside) = rest.strip_prefix(['{', ',']) {
        let (label, quoted) = inside.split_once("=\"").expect(line);
        assert!(is_name(label), "{line}");
        let (value, behind) = unquoted(quoted, line);
        assert!(labels.insert(label.into(), value).is_none(), "label twice: {line}");
        rest = behind.strip_prefix('}').unwrap_or(behind);
    }
    let value = rest.strip_prefix(' ').expect(line).parse().expect(line);
    (name.into(), labels, value)
}

fn unquoted<'a>(quoted: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => panic!("escape {other:?}: {line}"),
            },
            other => value.push(other),
        }
    }
    panic!("a label's value does not end: {line}")
}
