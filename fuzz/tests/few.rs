//! A few hundred inputs for every reader; the command has thousands.

use simla_fuzz::{Figures, all, attempt, hold_panics, input};

/// One test, since time and memory of the whole process are measured.
#[test]
fn strangers_bytes_are_taken_or_refused() {
    hold_panics();
    let folder = tempfile::tempdir().unwrap();
    let mut problems = Vec::new();
    for target in all() {
        let mut figures = Figures::new(target.name);
        for (number, seed) in target.seeds.iter().enumerate() {
            if let Err(error) = target.read(seed, folder.path()) {
                problems.push(format!("{}: its seed {number} is refused: {error}", target.name));
            }
        }
        (0..300).for_each(|number| {
            figures.add(attempt(&target, number, &input(&target, 1, number), folder.path()));
        });
        assert_eq!(input(&target, 1, 7), input(&target, 1, 7));
        if figures.accepted == 0 || figures.accepted == figures.inputs {
            problems.push(format!("{}: {} of {} accepted", target.name, figures.accepted, figures.inputs));
        }
        let finding = |f: &simla_fuzz::Finding| format!("{} {}: {}", target.name, f.input, f.problem);
        problems.extend(figures.findings.iter().map(finding));
    }
    // A panic's own words are held back here.
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    assert!(problems.is_empty());
}
