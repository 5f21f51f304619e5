//! Settings as people and editors read them: help, a commented file, a JSON schema.

use serde_json::{Value, json};
use simla::config::Preset;
use simla::fields::Field;

use super::{SECTIONS, Section, Settings, setting};

/// The width of everything that is printed.
const COLUMNS: usize = 80;

const PRESETS: [(&str, Preset); 3] = [("tiny", Preset::Tiny), ("small", Preset::Small), ("base", Preset::Base)];

/// The names of all settings that `shows` by their sections, for the help of a command.
pub fn sections_help(command: &str, shows: impl Fn(&str) -> bool) -> String {
    let mut help = "Settings (--set NAME=VALUE, or a line of --config):\n".to_owned();
    for section in SECTIONS.iter() {
        let names: Vec<&str> = section.settings.iter().map(|field| field.name.as_str()).filter(|n| shows(n)).collect();
        if !names.is_empty() {
            help += &wrapped(&format!("  {:<10} ", section.name), &names.join(", "));
        }
    }
    help + &format!("`{command}` explains them, `{command} SECTION` those of a section.\n")
}

/// What the settings that `shows` are, with `defaults` of every preset: of a section or a setting, or all.
///
/// # Errors
/// A name that is neither.
pub fn help(
    name: Option<&str>,
    defaults: impl Fn(Preset) -> Settings,
    shows: impl Fn(&str) -> bool,
) -> Result<String, super::SettingsError> {
    let defaults = PRESETS.map(|(name, preset)| (name, defaults(preset).table()));
    let of_section = |section: &Section| {
        let fields: Vec<&Field> = section.settings.iter().filter(|field| shows(&field.name)).collect();
        if fields.is_empty() {
            return String::new();
        }
        let settings: String = fields.iter().map(|field| one(field, &defaults)).collect();
        format!("{}{settings}\n", wrapped(&format!("{}: ", section.name), &section.about))
    };
    let Some(name) = name else {
        return Ok(SECTIONS.iter().map(of_section).collect());
    };
    match (SECTIONS.iter().find(|section| section.name == name), setting(name)) {
        (Some(section), _) => Ok(of_section(section)),
        (None, Some((_, field))) => Ok(one(field, &defaults)),
        (None, None) => Err(super::SettingsError::NoSection {
            name: name.into(),
            sections: SECTIONS.iter().map(|section| section.name).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// A setting with its defaults, what it may be, and what it is.
fn one(field: &Field, defaults: &[(&str, toml::Table); 3]) -> String {
    let [tiny, small, base] = defaults.each_ref().map(|(name, table)| (name, table[&field.name].to_string()));
    let default = if tiny.1 == small.1 && small.1 == base.1 {
        tiny.1
    } else {
        [tiny, small, base].map(|(name, value)| format!("{value} ({name})")).join(", ")
    };
    // That a count is not negative needs no saying.
    let range = field.range().filter(|range| range != "0 or more").map(|range| format!(": {range}"));
    let head = wrapped("  ", &format!("{} = {default}", field.name));
    format!("{head}{}", wrapped("      ", &format!("{}{}", field.about, range.unwrap_or_default())))
}

/// `text` in lines of at most [`COLUMNS`], the first after `head`, the others below where it begins.
fn wrapped(head: &str, text: &str) -> String {
    let indent = " ".repeat(head.len().min(13));
    let options = textwrap::Options::new(COLUMNS).initial_indent(head).subsequent_indent(&indent).break_words(false);
    textwrap::fill(text, options) + "\n"
}

/// A JSON schema of the file of settings, for editors: types, ranges, explanations, and the defaults of every preset.
pub fn schema() -> Value {
    let defaults = PRESETS.map(|(name, preset)| (name, json!(Settings::preset(preset).table())));
    let property = |field: &Field| {
        let mut schema = field.public_schema();
        let of = |(name, table): &(&str, Value)| ((*name).to_owned(), table[&field.name].clone());
        schema.insert("default".into(), defaults[0].1[&field.name].clone());
        schema.insert("x-defaults".into(), Value::Object(defaults.iter().map(of).collect()));
        (field.name.clone(), Value::Object(schema))
    };
    let properties = SECTIONS.iter().flat_map(|section| {
        section.settings.iter().map(move |field| {
            let (name, mut schema) = property(field);
            schema["x-section"] = section.name.into();
            (name, schema)
        })
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of simla",
        "type": "object",
        "additionalProperties": false,
        "properties": properties.collect::<serde_json::Map<_, _>>(),
    })
}

impl Settings {
    /// The resolved settings as a commented file, section by section.
    pub fn to_toml(&self) -> String {
        let table = self.table();
        let mut file = String::new();
        for section in SECTIONS.iter() {
            if !file.is_empty() {
                file.push('\n');
            }
            file += &wrapped_comment(&format!("{}: {}", section.name, section.about));
            for field in &section.settings {
                file += &format!("\n{}{} = {}\n", wrapped_comment(&field.about), field.name, table[&field.name]);
            }
        }
        file
    }
}

fn wrapped_comment(text: &str) -> String {
    let options = textwrap::Options::new(COLUMNS).initial_indent("# ").subsequent_indent("# ");
    textwrap::fill(text, options) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Kind;

    #[test]
    fn all_that_is_shown_fits_80_columns() {
        let everything = help(None, Settings::preset, |_| true).unwrap();
        let sections = sections_help("simla settings", |_| true);
        let file = Settings::preset(Preset::Base).to_toml();
        for line in everything.lines().chain(sections.lines()).chain(file.lines()) {
            assert!(line.len() <= COLUMNS, "{line}");
        }
        assert!(everything.contains("\n  lr = 0.001 (tiny), 0.0003 (small), 0.0001 (base)\n"), "{everything}");
        assert!(everything.contains("\n      learning rate at the top of the schedule: more than 0\n"), "{everything}");
        assert!(
            super::super::all().all(|(_, field)| everything.contains(&field.name) && sections.contains(&field.name))
        );
    }

    #[test]
    fn a_section_or_a_setting_alone() {
        let saving = help(Some("saving"), Settings::preset, |_| true).unwrap();
        assert!(saving.contains("save_every_steps") && !saving.contains("vision_width"), "{saving}");
        let alone = help(Some("keep"), Settings::preset, |_| true).unwrap();
        assert!(alone.starts_with("  keep = 3\n") && alone.lines().count() == 2, "{alone}");
        let error = help(Some("sawing"), Settings::preset, |_| true).unwrap_err().to_string();
        assert!(error.contains("`sawing`") && error.contains("recipe, train, model"), "{error}");
        // What fine-tuning has no use for is not told.
        let tuning = help(None, Settings::preset, |name| Settings::is_read(Kind::Retrieval, name)).unwrap();
        assert!(
            tuning.contains("queue_size") && !tuning.contains("dvae_lr") && !tuning.contains("tokenizer:"),
            "{tuning}"
        );
    }

    #[test]
    fn the_schema_has_types_ranges_and_the_defaults_of_every_preset() {
        let schema = schema();
        let batch = &schema["properties"]["batch_size"];
        assert_eq!((&batch["type"], &batch["minimum"], &batch["default"]), (&json!("integer"), &json!(2), &json!(32)));
        assert_eq!(batch["x-defaults"], json!({"tiny": 32, "small": 64, "base": 64}));
        let about = batch["description"].as_str().unwrap();
        assert!(about.starts_with("pairs in a micro-batch: negatives come from it"), "{about}");
        assert_eq!(schema["properties"]["preset"]["enum"], json!(["tiny", "small", "base"]));
        assert_eq!(schema["properties"]["objectives"]["items"]["enum"], json!(["itc", "itm", "mlm", "mim", "psl"]));
        assert_eq!(schema["properties"]["lr"]["exclusiveMinimum"], 0);
    }
}
