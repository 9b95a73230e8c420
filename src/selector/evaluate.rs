//! Three-valued logic (JMS 2.0 section 3.8.1.2): a missing property makes a comparison unknown,
//! which is `None` here; values of types that cannot be compared make it false.

use crate::expression::{Comparison, Expression, Operation};
use crate::properties::{Candidate, Operand};
use std::cmp::Ordering;

pub(crate) fn truth(
    condition: &Expression,
    message: &Candidate<'_>,
    converts: bool,
) -> Option<bool> {
    match condition {
        Expression::Or(parts) => any(parts, true, message, converts),
        Expression::And(parts) => any(parts, false, message, converts),
        Expression::Not(inside) => truth(inside, message, converts).map(|truth| !truth),
        Expression::Compare(comparison, left, right) => {
            let (left, right) = (value(left, message, converts), value(right, message, converts));
            compare(*comparison, left, right, converts)
        }
        Expression::In { name, texts, negated } => match message.get(name) {
            Operand::Null => None,
            Operand::Text(text) => Some(texts.contains(text) != *negated),
            _ => Some(false),
        },
        Expression::Like { name, like, negated } => match message.get(name) {
            Operand::Null => None,
            Operand::Text(text) => Some(like.matches(text) != *negated),
            _ => Some(false),
        },
        Expression::IsNull { name, negated } => {
            Some((message.get(name) == Operand::Null) != *negated)
        }
        value_of => match value(value_of, message, converts) {
            Operand::Null => None,
            Operand::Bool(truth) => Some(truth),
            Operand::Text(text) if converts => Some(boolean(text) == Some(true)),
            _ => Some(false),
        },
    }
}

/// `decisive` if one part is; else unknown if one part is.
fn any(
    parts: &[Expression],
    decisive: bool,
    message: &Candidate<'_>,
    converts: bool,
) -> Option<bool> {
    let mut outcome = Some(!decisive);
    for part in parts {
        match truth(part, message, converts) {
            Some(found) if found == decisive => return Some(decisive),
            Some(_) => {}
            None => outcome = None,
        }
    }
    outcome
}

fn value<'a>(of: &'a Expression, message: &Candidate<'a>, converts: bool) -> Operand<'a> {
    match of {
        Expression::Text(text) => Operand::Text(text),
        Expression::Exact(number) => Operand::Exact(*number),
        Expression::Approximate(number) => Operand::Approximate(*number),
        Expression::Bool(value) => Operand::Bool(*value),
        Expression::Name(name) => message.get(name),
        Expression::Negate(inside) => match number(value(inside, message, converts), converts) {
            Operand::Exact(number) => exact(number.checked_neg()),
            Operand::Approximate(number) => Operand::Approximate(-number),
            _ => Operand::Null,
        },
        Expression::Arithmetic(operation, left, right) => {
            let (left, right) = (value(left, message, converts), value(right, message, converts));
            calculate(*operation, number(left, converts), number(right, converts))
        }
        // The parser lets no condition stand for a value.
        _ => Operand::Null,
    }
}

fn exact(number: Option<i64>) -> Operand<'static> {
    number.map_or(Operand::Null, Operand::Exact)
}

/// What is no number cannot be calculated with: the result is unknown, as is a result that does not
/// fit and a division of exact numbers by zero.
fn calculate(operation: Operation, left: Operand<'_>, right: Operand<'_>) -> Operand<'static> {
    if let (Operand::Exact(left), Operand::Exact(right)) = (left, right) {
        return exact(match operation {
            Operation::Add => left.checked_add(right),
            Operation::Subtract => left.checked_sub(right),
            Operation::Multiply => left.checked_mul(right),
            Operation::Divide => left.checked_div(right),
        });
    }
    let (Some(left), Some(right)) = (approximate(left), approximate(right)) else {
        return Operand::Null;
    };
    Operand::Approximate(match operation {
        Operation::Add => left + right,
        Operation::Subtract => left - right,
        Operation::Multiply => left * right,
        Operation::Divide => left / right,
    })
}

fn approximate(operand: Operand<'_>) -> Option<f64> {
    match operand {
        Operand::Exact(number) => Some(number as f64),
        Operand::Approximate(number) => Some(number),
        _ => None,
    }
}

fn compare(
    comparison: Comparison,
    left: Operand<'_>,
    right: Operand<'_>,
    converts: bool,
) -> Option<bool> {
    if left == Operand::Null || right == Operand::Null {
        return None;
    }
    let (left, right) = if converts { alike(comparison, left, right) } else { (left, right) };
    let ordering = match (left, right) {
        (Operand::Exact(left), Operand::Exact(right)) => Some(left.cmp(&right)),
        (Operand::Text(left), Operand::Text(right)) if !comparison.is_ordering() => {
            Some(left.cmp(right))
        }
        (Operand::Bool(left), Operand::Bool(right)) if !comparison.is_ordering() => {
            Some(left.cmp(&right))
        }
        (left, right) => match (approximate(left), approximate(right)) {
            (Some(left), Some(right)) => match left.partial_cmp(&right) {
                // NaN differs from everything.
                None => return Some(comparison == Comparison::NotEqual),
                some => some,
            },
            _ => None,
        },
    };
    let Some(ordering) = ordering else { return Some(false) };
    Some(match comparison {
        Comparison::Equal => ordering == Ordering::Equal,
        Comparison::NotEqual => ordering != Ordering::Equal,
        Comparison::Less => ordering == Ordering::Less,
        Comparison::LessOrEqual => ordering != Ordering::Greater,
        Comparison::Greater => ordering == Ordering::Greater,
        Comparison::GreaterOrEqual => ordering != Ordering::Less,
    })
}

/// A text beside another type is taken for what it spells. Of two texts none is converted, unless
/// they are put in order: texts have none.
fn alike<'a>(
    comparison: Comparison,
    left: Operand<'a>,
    right: Operand<'a>,
) -> (Operand<'a>, Operand<'a>) {
    let to_bool = |text| boolean(text).map_or(Operand::Text(text), Operand::Bool);
    match (left, right) {
        (Operand::Text(_), Operand::Text(_)) if !comparison.is_ordering() => (left, right),
        (Operand::Text(text), Operand::Bool(_)) => (to_bool(text), right),
        (Operand::Bool(_), Operand::Text(text)) => (left, to_bool(text)),
        _ => (number(left, true), number(right, true)),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// The number that a text spells; anything else as it is.
fn number(operand: Operand<'_>, converts: bool) -> Operand<'_> {
    let Operand::Text(text) = operand else { return operand };
    // Not Rust's words for infinity and NaN.
    if !converts
        || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
    {
        return operand;
    }
    match (text.parse(), text.parse()) {
        (Ok(number), _) => Operand::Exact(number),
        (_, Ok(number)) => Operand::Approximate(number),
        _ => operand,
    }
}
