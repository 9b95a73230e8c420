//! What a selector is parsed into.

use crate::like::Like;
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    Text(String),
    Exact(i64),
    Approximate(f64),
    Bool(bool),
    Name(String),
    Negate(Box<Self>),
    Arithmetic(Operation, Box<Self>, Box<Self>),
    Compare(Comparison, Box<Self>, Box<Self>),
    In {
        name: String,
        texts: BTreeSet<String>,
        negated: bool,
    },
    Like {
        name: String,
        like: Like,
        negated: bool,
    },
    IsNull {
        name: String,
        negated: bool,
    },
    Not(Box<Self>),
    /// Of a chain of any length, so that it is not nested.
    And(Vec<Self>),
    Or(Vec<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(crate) fn is_ordering(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }
}

impl Expression {
    /// May stand where something is compared. The type of a name is known with a message only.
    pub(crate) fn is_value(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Bool(_)) || self.is_number()
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Exact(_)
                | Self::Approximate(_)
                | Self::Name(_)
                | Self::Negate(_)
                | Self::Arithmetic(..)
        )
    }

    /// May stand alone, and beside NOT, AND and OR.
    pub(crate) fn is_condition(&self) -> bool {
        matches!(self, Self::Bool(_) | Self::Name(_)) || !self.is_value()
    }
}
