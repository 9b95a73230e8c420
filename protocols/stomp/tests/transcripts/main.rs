//! Bytes in, requests and bytes out.

mod common;
mod connection;
mod dialect;
mod robustness;
mod selection;
mod send;
mod subscribe;
mod transactions;
