//! One request to a node's management interface, spoken by hand like `status` does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use crate::cli::exit::{
    EXIT_DATA, EXIT_NO_PERMISSION, EXIT_NO_USER, EXIT_SOFTWARE, EXIT_TEMPORARY, EXIT_UNAVAILABLE,
    EXIT_USAGE,
};

/// An answer beyond this is not read to its end.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Why a verb failed, and the exit code that says so to scripts.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) code: u8,
    pub(super) text: String,
}

impl Problem {
    pub(super) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

pub(super) struct Client {
    pub(super) data_dir: PathBuf,
    pub(super) url: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: String,
    pub(super) timeout: Duration,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Client {
    pub(super) fn get(&self, path: &str) -> Result<Value, Problem> {
        self.request("GET", path, &[], None)
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Result<Value, Problem> {
        self.request("PUT", path, &[], Some(body))
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Problem> {
        self.request("POST", path, &[], Some(body))
    }

    pub(super) fn delete(&self, path: &str, headers: &[(&str, &str)]) -> Result<(), Problem> {
        self.request("DELETE", path, headers, None).map(|_| ())
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, Problem> {
        let (mut stream, host) = self.connect()?;
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        if let Some(user) = &self.user {
            let credentials = BASE64.encode(format!("{user}:{}", self.password));
            text.push_str(&format!("Authorization: Basic {credentials}\r\n"));
        }
        for (name, value) in headers {
            // A line break would be another header.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let unanswered = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                let text = "no answer in time; a change may still be made";
                Problem::new(EXIT_TEMPORARY, text)
            }
            _ => Problem::new(EXIT_UNAVAILABLE, format!("{host}: {error}")),
        };
        stream.write_all(text.as_bytes()).map_err(unanswered)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(unanswered)?;
        understand(&String::from_utf8_lossy(&answer))
    }

    fn connect(&self) -> Result<(Box<dyn Stream>, String), Problem> {
        let unavailable = |what: String| Problem::new(EXIT_UNAVAILABLE, what);
        let Some(url) = &self.url else {
            let path = self.data_dir.join(crate::admin::CONTROL_SOCKET);
            let stream = UnixStream::connect(&path).map_err(|error| {
                unavailable(format!(
                    "no node at {}: {error}; --data-dir names another directory",
                    path.display()
                ))
            })?;
            let _ = stream.set_read_timeout(Some(self.timeout));
            return Ok((Box::new(stream), "localhost".into()));
        };
        let host = url.strip_prefix("http://").map(|host| host.trim_end_matches('/'));
        let host = host.ok_or_else(|| Problem::new(EXIT_USAGE, "expected http://host:port"))?;
        let address = host.to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = address.ok_or_else(|| unavailable(format!("{host}: no such address")))?;
        let stream = TcpStream::connect_timeout(&address, self.timeout)
            .map_err(|error| unavailable(format!("{url}: {error}")))?;
        let _ = stream.set_read_timeout(Some(self.timeout));
        Ok((Box::new(stream), host.to_owned()))
    }
}

/// The body of a good answer, or what a bad one says.
fn understand(answer: &str) -> Result<Value, Problem> {
    let broken = || Problem::new(EXIT_SOFTWARE, "the answer is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
    let status = status.ok_or_else(broken)?;
    let value: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(body).map_err(|_| Problem::new(EXIT_SOFTWARE, body))?
    };
    if (200..300).contains(&status) {
        return Ok(value);
    }
    let reason = value["reason"].as_str().unwrap_or(body);
    let code = match status {
        404 if reason.starts_with("user ") => EXIT_NO_USER,
        400 | 404 | 413 => EXIT_DATA,
        401 | 403 => EXIT_NO_PERMISSION,
        503 => EXIT_UNAVAILABLE,
        504 => EXIT_TEMPORARY,
        _ => EXIT_SOFTWARE,
    };
    Err(Problem::new(code, reason))
}

/// A name as one part of a path.
pub(super) fn part(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
