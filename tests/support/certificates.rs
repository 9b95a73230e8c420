//! An authority, a node's certificate and a client's, as files for tests of TLS.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared by test binaries")]

use crate::support::{Node, Ports};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};

/// The user that the client's certificate stands for.
pub const CLIENT: &str = "orders";

pub struct Tls {
    directory: PathBuf,
    authority: Issuer<'static, KeyPair>,
    pub amqp_port: String,
    pub stomp_port: String,
    pub native_port: String,
    /// Authority, client's certificate, client's key.
    pub client_files: [PathBuf; 3],
}

impl Tls {
    /// Makes the files, and lets the node listen with them.
    pub fn make(directory: &Path, node: &mut Node) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.join("ca.pem"), certificate.pem()).unwrap();
        let authority = Issuer::new(params, key);
        let client_files = ["ca.pem", "client.pem", "client.key"].map(|file| directory.join(file));
        let ports = Ports::free();
        let tls = Self {
            directory: directory.to_owned(),
            authority,
            amqp_port: Ports::port(&ports.amqp).to_string(),
            stomp_port: Ports::port(&ports.stomp).to_string(),
            native_port: Ports::port(&ports.native).to_string(),
            client_files,
        };
        tls.sign("node", "localhost");
        tls.sign("client", CLIENT);
        let file = |name: &str| directory.join(name);
        node.configure(&format!(
            "[tls]\ncertificate_file = {:?}\nkey_file = {:?}\nclient_ca_file = {:?}\n\
             login_from = \"common_name\"\n\
             [[users]]\nname = \"guest\"\npassword = \"guest\"\n\
             [[users]]\nname = \"{CLIENT}\"\npassword = \"never asked for\"\n",
            file("node.pem"),
            file("node.key"),
            file("ca.pem"),
        ));
        node.listen(&format!(
            "amqp_tls = \"{}\"\nstomp_tls = \"{}\"\nnative_tls = \"{}\"\n",
            ports.amqp, ports.stomp, ports.native
        ));
        tls
    }

    /// Writes `FILE.pem` and `FILE.key`, signed by the authority, good for this machine.
    pub fn sign(&self, file: &str, name: &str) {
        self.sign_for(file, name, &["localhost", "127.0.0.1"]);
    }

    /// Good for these names and addresses only.
    pub fn sign_for(&self, file: &str, name: &str, places: &[&str]) {
        let places: Vec<String> = places.iter().map(|place| (*place).to_owned()).collect();
        let mut params = CertificateParams::new(places).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.directory.join(format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.directory.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}
