//! The layers, and the errors that say which of them a wrong key came from.

use super::{ConfigError, Settings, check, unknown};
use config::{Config, File, FileFormat, Map, Source, Value, ValueKind};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The spellings of ActiveMQ's Pure Master Slave, and where they go.
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

/// Where each `section.key` was given last: a file, an environment variable or a flag.
pub(super) struct Origins {
    by_key: BTreeMap<String, String>,
    otherwise: String,
}

impl Origins {
    fn new(layers: &[Layer]) -> Self {
        let mut by_key = BTreeMap::new();
        for layer in layers {
            let own = |value: &Value| value.origin().unwrap_or(&layer.origin).to_owned();
            for (section, value) in &layer.values {
                by_key.insert(section.clone(), own(value));
                if let ValueKind::Table(table) = &value.kind {
                    let path = |key: &String| format!("{section}.{key}");
                    by_key.extend(table.iter().map(|(key, value)| (path(key), own(value))));
                }
            }
        }
        let file = layers.first().filter(|layer| !layer.values.is_empty());
        let otherwise = file.map_or("defaults", |layer| &layer.origin).to_owned();
        Self { by_key, otherwise }
    }

    pub(super) fn of(&self, key: &str) -> &str {
        let section = key.split_once('.').map_or(key, |(section, _)| section);
        let found = self.by_key.get(key).or_else(|| self.by_key.get(section));
        found.unwrap_or(&self.otherwise)
    }
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
    let origins = Origins::new(&layers);
    let mut builder = Config::builder();
    for layer in layers {
        unknown::refuse(&layer.values, &origins)?;
        builder = builder.add_source(Values(layer.values));
    }
    let whole = builder.build().and_then(Config::try_deserialize);
    check::check(whole.map_err(|error| config_error(&error, &origins))?, &origins)
}

fn file_layer(path: &std::path::Path) -> Result<Layer, ConfigError> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
        origin: origin.clone(),
        key: "--config".into(),
        problem: format!("cannot be read: {error}"),
    })?;
    let values = File::from_str(&text, FileFormat::Toml).collect();
    let values = values.map_err(|error| ConfigError {
        origin: origin.clone(),
        key: "TOML".into(),
        problem: error.to_string(),
    })?;
    layer(origin, values)
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
    layer("environment".into(), values)
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
    layer("flags".into(), values)
}

fn put(values: &mut Map<String, Value>, section: &str, key: &str, origin: &str, value: &str) {
    let origin = Some(&origin.to_owned());
    let entry = values
        .entry(section.to_owned())
        .or_insert_with(|| Value::new(origin, Map::<String, Value>::new()));
    if let ValueKind::Table(table) = &mut entry.kind {
        table.insert(key.to_owned(), Value::new(origin, value.to_owned()));
    }
}

/// Aliases are renamed here, so that the same key in two spellings is still one key.
fn layer(origin: String, mut values: Map<String, Value>) -> Result<Layer, ConfigError> {
    if let Some(replication) = values.get_mut("replication")
        && let ValueKind::Table(table) = &mut replication.kind
    {
        for (alias, name) in ALIASES {
            let found = table.remove(alias).or_else(|| table.remove(&alias.to_lowercase()));
            let Some(value) = found else { continue };
            if table.insert(name.to_owned(), value).is_some() {
                let problem = format!("given a second time, as {alias}");
                return Err(ConfigError { origin, key: format!("replication.{name}"), problem });
            }
        }
    }
    Ok(Layer { origin, values })
}

fn config_error(error: &config::ConfigError, origins: &Origins) -> ConfigError {
    let key = match error {
        config::ConfigError::At { key: Some(key), .. }
        | config::ConfigError::Type { key: Some(key), .. }
        | config::ConfigError::NotFound(key) => key,
        _ => "settings",
    };
    let origin = origins.of(key).to_owned();
    ConfigError { origin, key: key.to_owned(), problem: error.to_string() }
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
