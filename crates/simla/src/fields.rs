//! What the fields of a configuration say about themselves: names, explanations and ranges stand once, in its struct, and help, checks
//! and the schema for editors are read from there.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// A field of a configuration.
#[derive(Debug, Clone)]
pub struct Field {
    /// As files and `--set` have it.
    pub name: String,
    /// Its doc comment, on one line.
    pub about: String,
    /// Its JSON schema.
    pub schema: Value,
}

/// The doc comment of a configuration, on one line, and its fields in their order.
pub fn of<T: JsonSchema>() -> (String, Vec<Field>) {
    // Of what is written, not of what is read: only there every field is required, and that list alone keeps the order of the struct.
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|s| s.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    let text = |schema: &Value| schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    let names = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let fields = names.map(|name| {
        let schema = schema["properties"][name].clone();
        Field { name: name.into(), about: text(&schema), schema }
    });
    (text(&schema), fields.collect())
}

impl Field {
    /// A mark that the struct puts on the field: `extend("x-..." = "...")`.
    pub fn mark(&self, name: &str) -> Option<&str> {
        self.schema.get(name)?.as_str()
    }

    /// What a number must be, in words; none where every number will do, or where it is none.
    pub fn range(&self) -> Option<String> {
        let bound = |name| self.schema.get(name).and_then(Value::as_f64);
        let (least, above) = (bound("minimum"), bound("exclusiveMinimum"));
        let (most, below) = (bound("maximum"), bound("exclusiveMaximum"));
        let from = match (least, above) {
            (Some(0.0), _) => Some("0 or more".to_owned()),
            (Some(least), _) => Some(format!("at least {least}")),
            (None, above) => above.map(|above| format!("more than {above}")),
        };
        let to = match (most, below) {
            (Some(most), _) => Some(format!("at most {most}")),
            (None, below) => below.map(|below| format!("below {below}")),
        };
        match (least, most, from, to) {
            (Some(least), Some(most), ..) => Some(format!("{least} to {most}")),
            (.., Some(from), Some(to)) => Some(format!("{from}, {to}")),
            (.., from, to) => from.or(to),
        }
    }

    /// Refuses a number outside the range: what was expected.
    ///
    /// # Errors
    /// Also for what is no number at all.
    pub fn check(&self, value: f64) -> Result<(), String> {
        let holds = |name, holds: fn(f64, f64) -> bool| {
            let bound = self.schema.get(name).and_then(Value::as_f64);
            bound.is_none_or(|bound| holds(value, bound))
        };
        let inside = value.is_finite()
            && holds("minimum", |value, least| value >= least)
            && holds("exclusiveMinimum", |value, above| value > above)
            && holds("maximum", |value, most| value <= most)
            && holds("exclusiveMaximum", |value, below| value < below);
        match inside {
            true => Ok(()),
            false => Err(format!("expected {}", self.range().as_deref().unwrap_or("a finite number"))),
        }
    }

    /// Its schema for an editor: without the marks that are ours alone.
    pub fn public_schema(&self) -> Map<String, Value> {
        let all = self.schema.as_object().into_iter().flatten();
        let public = all.filter(|(name, _)| !name.starts_with("x-"));
        public.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a window
    /// looks like.
    #[derive(serde::Serialize, JsonSchema)]
    #[allow(dead_code)]
    struct Window {
        /// side in
        /// pixels
        #[schemars(range(min = 2, max = 64), extend("x-fixed" = "model"))]
        side: u64,
        /// how much shines through
        #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
        glass: f64,
        #[schemars(extend("exclusiveMinimum" = 0))]
        after: f64,
        any: f64,
    }

    #[test]
    fn a_struct_says_what_its_fields_are() {
        let (about, fields) = of::<Window>();
        assert_eq!(about, "What a window looks like.");
        let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["side", "glass", "after", "any"]);
        assert_eq!((fields[0].about.as_str(), fields[0].mark("x-fixed")), ("side in pixels", Some("model")));
        assert_eq!(fields[1].mark("x-fixed"), None);
        assert_eq!(fields[0].public_schema()["maximum"], 64);
        assert!(!fields[0].public_schema().contains_key("x-fixed"));
        let ranges: Vec<_> = fields.iter().map(|field| field.range()).collect();
        let expected = [Some("2 to 64"), Some("0 or more, below 1"), Some("more than 0"), None];
        assert_eq!(ranges, expected.map(|range| range.map(str::to_owned)));
        for (field, inside, outside) in
            [(0, 2.0, 1.0), (0, 64.0, 65.0), (1, 0.0, 1.0), (2, 1e-9, 0.0), (3, -5.0, f64::NAN)]
        {
            fields[field].check(inside).unwrap();
            fields[field].check(outside).unwrap_err();
        }
    }
}
