//! Bodies of requests: JSON objects, whatever content type they come with, into what they mean.

use super::failure::Failure;
use super::table_json::from_json;
use crate::auth::{Authenticator, hash};
use bytes::Bytes;
use serde_json::{Map, Value};
use understudy_model::{
    ApplyTo, Bind, DeclareExchange, DeclareQueue, PermissionRecord, PolicyRecord, Text, Token,
    UserRecord,
};

pub(super) struct Body(pub(super) Map<String, Value>);

impl Body {
    /// An empty body is an empty object.
    pub(super) fn parse(bytes: &Bytes) -> Result<Self, Failure> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => Err(Failure::bad("the body is not a JSON object")),
            Err(error) => Err(Failure::bad(format!("the body is not JSON: {error}"))),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Failure> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Failure::bad(format!("{key}: expected a text"))),
        }
    }

    fn needed(&self, key: &str) -> Result<Text, Failure> {
        match self.text(key)? {
            Some(text) => Ok(Text::from(text)),
            None => Err(Failure::bad(format!("{key} is missing"))),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, Failure> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(_) => Err(Failure::bad(format!("{key}: expected true or false"))),
        }
    }

    fn table(&self, key: &str) -> Result<Bytes, Failure> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(Bytes::new()),
            Some(Value::Array(list)) if list.is_empty() => Ok(Bytes::new()),
            Some(Value::Object(object)) => {
                from_json(object).map_err(|why| Failure::bad(format!("{key}: {why}")))
            }
            Some(_) => Err(Failure::bad(format!("{key}: expected an object"))),
        }
    }

    pub(super) fn permission(&self, user: &str, vhost: &str) -> Result<PermissionRecord, Failure> {
        Ok(PermissionRecord {
            user: Text::from(user),
            vhost: Text::from(vhost),
            configure: self.needed("configure")?,
            write: self.needed("write")?,
            read: self.needed("read")?,
        })
    }

    pub(super) fn policy(&self, vhost: &str, name: &str) -> Result<PolicyRecord, Failure> {
        let apply_to = self.text("apply-to")?.unwrap_or("all");
        let apply_to = ApplyTo::parse(apply_to)
            .ok_or_else(|| Failure::bad("apply-to: expected all, queues or exchanges"))?;
        let priority = match self.0.get("priority") {
            None | Some(Value::Null) => Some(0),
            Some(Value::Number(number)) => number.as_i64().and_then(|n| i32::try_from(n).ok()),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        Ok(PolicyRecord {
            vhost: Text::from(vhost),
            name: Text::from(name),
            pattern: self.needed("pattern")?,
            apply_to,
            priority: priority
                .ok_or_else(|| Failure::bad("priority: expected a 32-bit whole number"))?,
            definition: self.table("definition")?,
        })
    }

    pub(super) fn queue(&self, token: Token, name: &str) -> Result<DeclareQueue, Failure> {
        Ok(DeclareQueue {
            token,
            name: Text::from(name),
            durable: self.flag("durable", true)?,
            auto_delete: self.flag("auto_delete", false)?,
            arguments: self.table("arguments")?,
            ..DeclareQueue::default()
        })
    }

    pub(super) fn exchange(&self, token: Token, name: &str) -> Result<DeclareExchange, Failure> {
        Ok(DeclareExchange {
            token,
            name: Text::from(name),
            kind: self.needed("type")?,
            passive: false,
            durable: self.flag("durable", true)?,
            auto_delete: self.flag("auto_delete", false)?,
            internal: self.flag("internal", false)?,
            arguments: self.table("arguments")?,
        })
    }

    pub(super) fn bind(
        &self,
        token: Token,
        source: &str,
        destination: &str,
        to_exchange: bool,
    ) -> Result<Bind, Failure> {
        Ok(Bind {
            token,
            source: Text::from(source),
            destination: Text::from(destination),
            to_exchange,
            key: Text::from(self.text("routing_key")?.unwrap_or_default()),
            arguments: self.table("arguments")?,
        })
    }

    /// Tags are a list, or one text with commas.
    fn tags(&self) -> Result<Vec<Text>, Failure> {
        let list: Vec<&str> = match self.0.get("tags") {
            None => return Err(Failure::bad("tags is missing")),
            Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => text.split(',').collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(_) => return Err(Failure::bad("tags: expected a list or a text with commas")),
        };
        let tags = list.into_iter().map(str::trim).filter(|tag| !tag.is_empty());
        Ok(tags.map(Text::from).collect())
    }

    /// A user with a new password, or with a hash as another broker's file has it; without either
    /// no password lets it in.
    pub(super) async fn user(
        &self,
        name: &str,
        auth: &Authenticator,
    ) -> Result<UserRecord, Failure> {
        let tags = self.tags()?;
        let given = self.text("password_hash")?.filter(|hash| !hash.is_empty());
        let password_hash = match (self.text("password")?, given) {
            (Some(password), None) if !password.is_empty() => {
                let hashed = auth.hash(password.as_bytes().to_vec()).await;
                hashed.map_err(|why| {
                    Failure::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, why)
                })?
            }
            (Some(""), None) => return Err(Failure::bad("the password must not be empty")),
            (_, Some(hash)) => self.stored_hash(hash)?,
            _ => Text::new(),
        };
        Ok(UserRecord { name: Text::from(name), password_hash, tags })
    }

    fn stored_hash(&self, given: &str) -> Result<Text, Failure> {
        let algorithm = self.text("hashing_algorithm")?.unwrap_or("rabbit_password_hashing_sha256");
        let prefix = match algorithm {
            "rabbit_password_hashing_sha256" | "sha256" | "SHA256" => hash::SHA256,
            "argon2id" => hash::ARGON2ID,
            other => return Err(Failure::bad(format!("hashing_algorithm {other} is not known"))),
        };
        let stored = format!("{prefix}{given}");
        if !hash::is_hash(&stored) {
            return Err(Failure::bad("password_hash is not one of its algorithm"));
        }
        Ok(Text::from(stored))
    }
}
