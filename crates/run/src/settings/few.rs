//! What few pictures need otherwise than the millions that the presets are for.

use toml::Value;

use super::{Settings, SettingsError};

impl Settings {
    /// Takes what is good for so many pictures in place of defaults that nobody asked for, and says what it took; none where the preset is
    /// right as it is. A queue that holds every picture several times is one of negatives of themselves: it gets the size of a batch.
    ///
    /// # Errors
    /// If that does not go together with what was asked for.
    pub fn suit(&mut self, pictures: u64) -> Result<Option<String>, SettingsError> {
        let most = (pictures / 3).max(1);
        let mut better = Vec::new();
        if self.model.queue_size as u64 > most {
            better.push(("queue_size", Value::Integer(self.train.batch_size.min(most) as i64)));
        }
        better.retain(|(name, _)| !self.asked.contains(*name));
        for (name, value) in &better {
            self.set(name, value.clone()).expect("a setting of its kind");
        }
        self.validate()?;
        let taken: Vec<String> = better.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let sentence = |taken: String| format!("for {pictures} pictures: {taken} (--set changes it)");
        Ok((!taken.is_empty()).then(|| sentence(taken.join(", "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_pictures_have_a_short_queue_unless_another_is_asked_for() {
        let suited = |set: &[&str], pictures| {
            let set: Vec<String> = set.iter().map(|&set| set.to_owned()).collect();
            let mut settings = Settings::resolve(None, &set).unwrap();
            let taken = settings.suit(pictures).unwrap();
            (settings.model.queue_size, taken)
        };
        let (size, taken) = suited(&["preset=base"], 6000);
        assert_eq!(size, 64);
        assert_eq!(taken.unwrap(), "for 6000 pictures: queue_size=64 (--set changes it)");
        assert_eq!(suited(&["preset=base"], 90).0, 30);
        assert_eq!(suited(&["preset=base"], 4_000_000), (65_536, None));
        assert_eq!(suited(&["preset=base", "queue_size=5000"], 6000), (5000, None));
        // What a run has written down stays: it is asked for by its own file.
        let file = Settings::preset(simla::config::Preset::Base).to_toml();
        let mut resumed = Settings::resumed(&file, &[]).unwrap();
        assert_eq!(resumed.suit(6000).unwrap(), None);
    }
}
