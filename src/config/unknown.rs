//! Keys that do not exist, named by their whole path and with those that do. serde would refuse
//! them too, but it does not know in which section it is. And fractions, which it would not refuse.

use super::ConfigError;
use super::given::{Given, User};
use super::layers::Origins;
use config::{Map, Value, ValueKind};
use serde::Serialize;

pub(super) fn refuse(values: &Map<String, Value>, origins: &Origins) -> Result<(), ConfigError> {
    let sections = keys(&Given::default());
    let sections = sections.as_object().into_iter().flatten();
    let names: Vec<&str> = sections.clone().map(|(name, _)| name.as_str()).collect();
    for (section, value) in values {
        let Some((_, typed)) = sections.clone().find(|(name, _)| *name == section) else {
            return Err(unknown("section", section, &names, origins));
        };
        match &value.kind {
            ValueKind::Table(table) => refuse_keys(section, table, typed, origins)?,
            ValueKind::Array(entries) => {
                let secret = Some(String::new());
                let user = User {
                    password: secret.clone(),
                    password_hash: secret,
                    permissions: Some(Vec::new()),
                    ..User::default()
                };
                for entry in entries {
                    if let ValueKind::Table(table) = &entry.kind {
                        refuse_keys(section, table, &keys(&user), origins)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn refuse_keys(
    section: &str,
    table: &Map<String, Value>,
    typed: &serde_json::Value,
    origins: &Origins,
) -> Result<(), ConfigError> {
    let Some(typed) = typed.as_object() else { return Ok(()) };
    // Sorted, so that of two wrong keys always the same one is named.
    let mut given: Vec<&String> = table.keys().collect();
    given.sort();
    for key in given {
        // Options with numbers count something; `config` would round what is given.
        if let Some(ValueKind::Float(_)) = table.get(key).map(|value| &value.kind) {
            let key = format!("{section}.{key}");
            let origin = origins.of(&key).to_owned();
            return Err(ConfigError { origin, key, problem: "expected a whole number".into() });
        }
        if !typed.contains_key(key) {
            let names: Vec<&str> = typed.keys().map(String::as_str).collect();
            return Err(unknown("key", &format!("{section}.{key}"), &names, origins));
        }
    }
    Ok(())
}

fn unknown(what: &str, key: &str, names: &[&str], origins: &Origins) -> ConfigError {
    ConfigError {
        origin: origins.of(key).to_owned(),
        key: key.to_owned(),
        problem: format!("unknown {what}: expected one of {}", names.join(", ")),
    }
}

fn keys(typed: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(typed).unwrap_or_default()
}
