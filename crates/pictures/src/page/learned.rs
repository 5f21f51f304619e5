//! What a run has learned: the numbers of its evaluations, beside what they are to be compared with.

use super::words::{cell, clipped};
use crate::charts;
use crate::numbers::natural;
use crate::run::EvaluationRow;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeSet;

/// More evaluations than this: the first and the last are shown, and all of them on demand.
const MAX_COLUMNS: usize = 4;

/// Most numbers that are shown.
const MAX_NUMBERS: usize = 48;

/// One number a line, its baselines first, then what it was after the first steps and the last.
pub(super) fn table(evaluations: &[EvaluationRow]) -> Markup {
    let names = numbers(evaluations);
    let (baselines, scores): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| charts::parts(name).2.is_some());
    let kinds: BTreeSet<&str> = baselines.iter().filter_map(|name| charts::parts(name).2).collect();
    let shown: Vec<&EvaluationRow> = match evaluations {
        [first, .., before, last] if evaluations.len() > MAX_COLUMNS => vec![first, before, last],
        all => all.iter().collect(),
    };
    let baseline = |score: &str, kind: &str| {
        let name = format!("{score}/{kind}");
        evaluations.iter().rev().find_map(|row| row.get(&name))
    };
    let mut group = "";
    html! {
        div class="scroll" {
            table {
                thead { tr {
                    th {}
                    @for kind in &kinds { th class="faint" { (clipped(kind)) } }
                    @for row in &shown { th { (when(row)) } }
                } }
                @for score in scores.iter().take(MAX_NUMBERS) {
                    @let (own_group, own, _) = charts::parts(score);
                    @if own_group != std::mem::replace(&mut group, own_group) {
                        tr { th { (clipped(&charts::title(own_group))) } }
                    }
                    tr {
                        td { (clipped(own)) }
                        @for kind in &kinds { td class="number faint" { (cell(baseline(score, kind))) } }
                        @for row in &shown { td class="number" { (cell(row.get(*score))) } }
                    }
                }
            }
        }
        @if shown.len() < evaluations.len() {
            details {
                summary { "All " (evaluations.len()) " evaluations" }
                div class="scroll" {
                    table {
                        thead { tr { th {} @for score in scores.iter().take(MAX_NUMBERS) { th { (clipped(score)) } } } }
                        @for row in evaluations {
                            tr {
                                td { (when(row)) }
                                @for score in scores.iter().take(MAX_NUMBERS) { td class="number" { (cell(row.get(*score))) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// All names of numbers, in their natural order.
fn numbers(evaluations: &[EvaluationRow]) -> Vec<&str> {
    let pairs = evaluations.iter().flatten();
    let numbers = pairs.filter(|(name, value)| *name != "step" && (value.is_number() || value.is_null()));
    let names: BTreeSet<&str> = numbers.map(|(name, _)| name.as_str()).collect();
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_by(|a, b| natural(a).cmp(&natural(b)));
    names
}

/// What is said of an evaluation: its step and its words.
fn when(row: &EvaluationRow) -> String {
    let step = row.get("step").map(|step| format!("step {}", cell(Some(step))));
    let words = row.values().filter_map(Value::as_str).map(clipped);
    step.into_iter().chain(words).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(rows: &[Value]) -> Vec<EvaluationRow> {
        rows.iter().map(|row| row.as_object().unwrap().clone()).collect()
    }

    #[test]
    fn scores_stand_beside_their_baselines() {
        let page = table(&rows(&[
            json!({"when": "before", "held_out/txt_r1": 2.5, "held_out/txt_r1/chance": 2}),
            json!({"when": "after", "held_out/txt_r1": 70.25, "grounding/pointing": 60, "grounding/pointing/random": 9}),
        ]));
        let cells: String = page
            .into_string()
            .replace("thead>", "x>")
            .replace("<td", "|<td")
            .replace("<th", "|<th")
            .replace("</tr>", "\n");
        let text: String = cells.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
        let expected =
            "||chance|random|before|after\n|grounding\n|pointing|-|9|-|60\n|held out\n|txt_r1|2|-|2.5|70.25\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn many_evaluations_are_shown_on_demand() {
        let many: Vec<Value> = (1..=9).map(|step| json!({"step": step, "txt_r1": 10 + step})).collect();
        let page = table(&rows(&many)).into_string();
        let (table, all) = page.split_once("<details>").unwrap();
        assert!(table.contains("step 1<") && table.contains("step 8<") && table.contains("step 9<"));
        assert!(!table.contains("step 2<") && all.contains("step 2<") && all.contains("All 9 evaluations"));
    }
}
