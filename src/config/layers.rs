//! The layers, and the errors that say which of them a wrong key came from.

use super::given::Given;
use super::{ConfigError, Settings, check};
use config::{Config, File, FileFormat, Map, Source, Value};
use std::path::PathBuf;

/// The seed's own spellings, and where they go.
const ALIASES: [(&str, &str); 6] = [
    ("masterConnectorURI", "master_uri"),
    ("shutdownOnMasterFailure", "shutdown_on_master_failure"),
    ("shutdownOnSlaveFailure", "shutdown_on_slave_failure"),
    ("waitForSlave", "wait_for_slave"),
    ("waitForSlaveTimeout", "wait_for_slave_timeout"),
    ("userName", "user"),
];
const ENVIRONMENT_PREFIX: &str = "UNDERSTUDY__";

/// What the command line says about settings.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// TOML file with settings; without one, a standalone master on embedded defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Preference for the first meeting of a pair.
    #[arg(long, value_name = "master|slave")]
    pub role: Option<String>,
    /// Where the node keeps its data.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Any setting: section.key=value. May be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

/// One layer on its own, so that an error can name it.
struct Layer {
    origin: String,
    values: Map<String, Value>,
}

/// Reads and checks the settings. `environment` is given, so that tests need not change the
/// process's own.
///
/// # Errors
/// The first wrong key, with its origin and what would be right.
pub fn load(
    flags: &Flags,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Settings, ConfigError> {
    let mut layers = Vec::new();
    if let Some(path) = &flags.config {
        layers.push(file_layer(path)?);
    }
    layers.push(environment_layer(environment)?);
    layers.push(flag_layer(flags)?);
    let mut builder = Config::builder();
    for layer in &layers {
        // Each layer must fit by itself: then the error is about this one and not about the sum.
        let alone = build(Config::builder().add_source(Values(layer.values.clone())), layer)?;
        deserialize(alone, &layer.origin)?;
        builder = builder.add_source(Values(layer.values.clone()));
    }
    let origin = layers.iter().map(|layer| layer.origin.as_str());
    let origin = origin.filter(|o| *o != "environment" && *o != "flags").collect::<Vec<_>>();
    let origin = if origin.is_empty() { "settings".to_owned() } else { origin.join(", ") };
    let whole = builder.build().map_err(|error| config_error(&origin, &error))?;
    check::check(deserialize(whole, &origin)?, &origin)
}

fn file_layer(path: &std::path::Path) -> Result<Layer, ConfigError> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
        origin: origin.clone(),
        key: "--config".into(),
        problem: format!("cannot be read: {error}"),
    })?;
    let source = File::from_str(&text, FileFormat::Toml);
    let values = source.collect().map_err(|error| config_error(&origin, &error))?;
    Ok(Layer { origin, values: rename_aliases(values) })
}

fn environment_layer(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Layer, ConfigError> {
    let mut values = Map::new();
    for (name, value) in environment {
        let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let Some((section, key)) = path.split_once("__") else {
            return Err(ConfigError {
                origin: "environment".into(),
                key: name,
                problem: "expected UNDERSTUDY__SECTION__KEY".into(),
            });
        };
        put(&mut values, &section.to_lowercase(), &key.to_lowercase(), &name, &value);
    }
    Ok(Layer { origin: "environment".into(), values: rename_aliases(values) })
}

fn flag_layer(flags: &Flags) -> Result<Layer, ConfigError> {
    let mut values = Map::new();
    for setting in &flags.set {
        let parts = setting.split_once('=').and_then(|(path, value)| {
            let (section, key) = path.split_once('.')?;
            Some((section, key, value))
        });
        let Some((section, key, value)) = parts else {
            return Err(ConfigError {
                origin: "flags".into(),
                key: format!("--set {setting}"),
                problem: "expected section.key=value".into(),
            });
        };
        put(&mut values, section, key, "--set", value);
    }
    if let Some(role) = &flags.role {
        put(&mut values, "broker", "role", "--role", role);
    }
    if let Some(dir) = &flags.data_dir {
        put(&mut values, "broker", "data_dir", "--data-dir", &dir.display().to_string());
    }
    Ok(Layer { origin: "flags".into(), values: rename_aliases(values) })
}

fn put(values: &mut Map<String, Value>, section: &str, key: &str, origin: &str, value: &str) {
    let origin = Some(&origin.to_owned());
    let entry = values
        .entry(section.to_owned())
        .or_insert_with(|| Value::new(origin, Map::<String, Value>::new()));
    if let config::ValueKind::Table(table) = &mut entry.kind {
        table.insert(key.to_owned(), Value::new(origin, value.to_owned()));
    }
}

fn rename_aliases(mut values: Map<String, Value>) -> Map<String, Value> {
    if let Some(replication) = values.get_mut("replication")
        && let config::ValueKind::Table(table) = &mut replication.kind
    {
        for (alias, name) in ALIASES {
            let found = table.remove(alias).or_else(|| table.remove(&alias.to_lowercase()));
            if let Some(value) = found {
                table.insert(name.to_owned(), value);
            }
        }
    }
    values
}

fn build(
    builder: config::ConfigBuilder<config::builder::DefaultState>,
    layer: &Layer,
) -> Result<Config, ConfigError> {
    builder.build().map_err(|error| config_error(&layer.origin, &error))
}

fn deserialize(config: Config, origin: &str) -> Result<Given, ConfigError> {
    config.try_deserialize().map_err(|error| config_error(origin, &error))
}

fn config_error(origin: &str, error: &config::ConfigError) -> ConfigError {
    let key = match error {
        config::ConfigError::At { key: Some(key), .. }
        | config::ConfigError::Type { key: Some(key), .. } => key.clone(),
        config::ConfigError::NotFound(key) => key.clone(),
        _ => String::new(),
    };
    let text = error.to_string();
    // serde names an unknown field in its text only.
    let key = if key.is_empty() {
        let unknown = text.split('`').nth(1).unwrap_or("settings").to_owned();
        if text.contains("unknown field") { unknown } else { "settings".to_owned() }
    } else {
        key
    };
    ConfigError { origin: origin.to_owned(), key, problem: text }
}

/// Values that are already collected, as a source.
#[derive(Clone, Debug)]
struct Values(Map<String, Value>);

impl Source for Values {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}
