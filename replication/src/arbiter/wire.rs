//! Calls and answers as bytes, for `understudy arbiter`.

use super::{ArbiterAnswer, ArbiterCall, Held, Register};
use crate::pair::{get_epoch, put_epoch};
use bytes::{Bytes, BytesMut};
use understudy_model::{Malformed, NodeId, Reader, Writer};

const READ: u8 = 1;
const SWAP: u8 = 2;
const RENEW: u8 = 3;
const RELEASE: u8 = 4;

impl ArbiterCall {
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        match self {
            Self::Read => w.u8(READ),
            Self::Swap { expected, register, lease_ms, force } => {
                w.u8(SWAP);
                w.varint(*expected);
                register.encode(w);
                w.varint(*lease_ms);
                w.bool(*force);
            }
            Self::Renew { leader, epoch, lease_ms } => {
                w.u8(RENEW);
                w.u128(leader.0);
                put_epoch(w, *epoch);
                w.varint(*lease_ms);
            }
            Self::Release { leader, epoch } => {
                w.u8(RELEASE);
                w.u128(leader.0);
                put_epoch(w, *epoch);
            }
        }
        out.freeze()
    }

    /// # Errors
    /// The bytes are no call.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let call = match r.u8()? {
            READ => Self::Read,
            SWAP => Self::Swap {
                expected: r.varint()?,
                register: Register::decode(&mut r)?,
                lease_ms: r.varint()?,
                force: r.bool()?,
            },
            RENEW => Self::Renew {
                leader: NodeId(r.u128()?),
                epoch: get_epoch(&mut r)?,
                lease_ms: r.varint()?,
            },
            RELEASE => Self::Release { leader: NodeId(r.u128()?), epoch: get_epoch(&mut r)? },
            _ => return Err(Malformed("kind of call")),
        };
        r.finish()?;
        Ok(call)
    }
}

impl ArbiterAnswer {
    /// [`Self::Silent`] is never sent: it says that nothing came.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let w = &mut Writer(&mut out);
        if let Self::Told { done, held } = self {
            w.bool(*done);
            w.bool(held.is_some());
            if let Some(held) = held {
                w.varint(held.version);
                held.register.encode(w);
                w.varint(held.lease_ms);
            }
        }
        out.freeze()
    }

    /// # Errors
    /// The bytes are no answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader(bytes);
        let done = r.bool()?;
        let held = if r.bool()? {
            let (version, register) = (r.varint()?, Register::decode(&mut r)?);
            Some(Held { version, register, lease_ms: r.varint()? })
        } else {
            None
        };
        r.finish()?;
        Ok(Self::Told { done, held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_model::Epoch;

    #[test]
    fn calls_and_answers_read_back_and_nothing_shorter_does() {
        let (leader, epoch) = (NodeId(7), Epoch { number: 300, generation: u64::MAX });
        let register = Register { cluster: 9, epoch, leader, slave: Some(NodeId(8)) };
        for call in [
            ArbiterCall::Read,
            ArbiterCall::Swap { expected: 3, register, lease_ms: 4_000, force: true },
            ArbiterCall::Renew { leader, epoch, lease_ms: 1 },
            ArbiterCall::Release { leader, epoch },
        ] {
            let bytes = call.encode();
            assert_eq!(ArbiterCall::decode(&bytes), Ok(call));
            for length in 0..bytes.len() {
                assert!(ArbiterCall::decode(&bytes[..length]).is_err());
            }
        }
        let held = Some(Held { version: 3, register, lease_ms: 77 });
        for answer in [
            ArbiterAnswer::Told { done: false, held: None },
            ArbiterAnswer::Told { done: true, held },
        ] {
            assert_eq!(ArbiterAnswer::decode(&answer.encode()), Ok(answer));
        }
        assert!(ArbiterAnswer::decode(&[]).is_err());
        assert!(ArbiterCall::decode(&[9]).is_err());
    }
}
