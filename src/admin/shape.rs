//! What callers of listings may ask beside the rows: a page, a part of the name, columns, an order.

use super::failure::Failure;
use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Default, Deserialize)]
pub(super) struct Shape {
    page: Option<usize>,
    page_size: Option<usize>,
    /// Only rows whose name contains this.
    name: Option<String>,
    /// Names of fields, with commas; `a.b` for nested ones.
    columns: Option<String>,
    sort: Option<String>,
    sort_reverse: Option<bool>,
}

const PAGE_ROWS: usize = 100;
const PAGE_ROWS_MAX: usize = 500;

impl Shape {
    pub(super) fn apply(&self, mut rows: Vec<Value>) -> Result<Json<Value>, Failure> {
        let total = rows.len();
        if let Some(part) = self.name.as_deref().filter(|part| !part.is_empty()) {
            rows.retain(|row| row["name"].as_str().is_some_and(|name| name.contains(part)));
        }
        if let Some(field) = &self.sort {
            rows.sort_by(|one, other| order(&one[field.as_str()], &other[field.as_str()]));
        }
        if self.sort_reverse == Some(true) {
            rows.reverse();
        }
        let found = rows.len();
        let Some(page) = self.page else {
            return Ok(Json(rows.into_iter().map(|row| self.cut(row)).collect()));
        };
        let size = self.page_size.unwrap_or(PAGE_ROWS);
        if page == 0 || size == 0 || size > PAGE_ROWS_MAX {
            return Err(Failure::bad(format!("page from 1, page_size 1 to {PAGE_ROWS_MAX}")));
        }
        let pages = found.div_ceil(size).max(1);
        if page > pages {
            return Err(Failure::bad(format!("page {page} of {pages}")));
        }
        let items: Vec<Value> =
            rows.into_iter().skip((page - 1) * size).take(size).map(|row| self.cut(row)).collect();
        Ok(Json(json!({
            "items": items,
            "item_count": items.len(),
            "filtered_count": found,
            "total_count": total,
            "page": page,
            "page_count": pages,
            "page_size": size,
        })))
    }

    fn cut(&self, row: Value) -> Value {
        let (Some(columns), Value::Object(fields)) = (&self.columns, &row) else { return row };
        let wanted: Vec<&str> = columns.split(',').map(str::trim).collect();
        let kept = fields.iter().filter(|(name, _)| {
            wanted.iter().any(|column| column.split('.').next() == Some(name.as_str()))
        });
        Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }
}

fn order(one: &Value, other: &Value) -> std::cmp::Ordering {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => one.as_str().unwrap_or_default().cmp(other.as_str().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_filters_columns_and_order() {
        let rows = || (0..5).map(|n| json!({"name": format!("q{n}"), "messages": n, "x": 1}));
        let shape = |text: &str| {
            let shape: Shape = serde_json::from_str(text).unwrap();
            shape.apply(rows().collect()).map(|json| json.0).map_err(|failure| failure.reason)
        };
        let all = shape("{}").unwrap();
        assert_eq!(all.as_array().unwrap().len(), 5);
        let page = shape(r#"{"page": 2, "page_size": 2, "columns": "name"}"#).unwrap();
        assert_eq!(page["items"], json!([{"name": "q2"}, {"name": "q3"}]));
        assert_eq!((page["page_count"].as_u64(), page["total_count"].as_u64()), (Some(3), Some(5)));
        let found = shape(r#"{"name": "3", "page": 1}"#).unwrap();
        assert_eq!(found["filtered_count"], 1);
        let sorted = shape(r#"{"sort": "messages", "sort_reverse": true}"#).unwrap();
        assert_eq!(sorted[0]["name"], "q4");
        assert!(shape(r#"{"page": 9}"#).is_err() && shape(r#"{"page": 0}"#).is_err());
    }
}
