//! The plots of the page.

use std::collections::BTreeMap;

use vispec_report::plots::{Bar, BarGroup, BarUnit, Chart, Figure, GroupedBars, depth_chart};
use vispec_report::record::TreeSettings;
use vispec_report::statistics::Estimate;

use super::results::{Condition, Outcome, Results};

/// Creates a plot of acceptance by depth for each greedy condition with trees of a fixed size.
pub(super) fn depths(results: &Results<'_>) -> Vec<Figure> {
    let conditions = results.conditions.iter();
    let fixed =
        conditions.filter(|condition| condition.has_fixed_trees() && condition.temperature <= 0.0);
    let figure = |condition: &Condition<'_>| {
        let shape = condition.tree.to_string().replace('/', "-");
        let outcomes = condition.outcomes.iter().enumerate();
        let lines = outcomes.map(|(color, outcome)| {
            let name = (outcome.draft.to_owned(), color);
            (name, outcome.acceptance.clone())
        });
        let what = format!("{}, trees {}, greedy", condition.title(), condition.tree);
        Figure {
            name: format!("depths-{}-{shape}", condition.task),
            chart: Chart::Lines(depth_chart(lines, &what)),
        }
    };
    fixed.map(figure).collect()
}

/// Creates plots of tau and speed-up for each tree and temperature.
pub(super) fn bars_of_all(results: &Results<'_>) -> Vec<Figure> {
    // The bits of non-negative floats are in the order of the numbers.
    let mut grouped: BTreeMap<(TreeSettings, u32), Vec<&Condition<'_>>> = BTreeMap::new();
    for condition in &results.conditions {
        let key = (condition.tree, condition.temperature.to_bits());
        grouped.entry(key).or_default().push(condition);
    }
    let mut figures = Vec::new();
    for ((tree, bits), conditions) in grouped {
        let temperature = f32::from_bits(bits);
        let shape = tree.to_string().replace('/', "-");
        figures.push(Figure {
            name: format!("tau-{shape}-t{temperature}"),
            chart: Chart::Bars(bars(
                &conditions,
                (
                    format!(
                        "Accepted draft tokens per cycle, trees {tree}, temperature {temperature}"
                    ),
                    "bonus token excluded; 95% bootstrap intervals over prompts".to_owned(),
                    ("tau", BarUnit::Number),
                ),
                |outcome| outcome.estimates.tau,
            )),
        });
        figures.push(Figure {
            name: format!("speed-up-{shape}-t{temperature}"),
            chart: Chart::Bars(bars(
                &conditions,
                (
                    format!(
                        "Speed-up over plain decoding, trees {tree}, temperature {temperature}"
                    ),
                    "tokens per second of the cycles; 95% bootstrap intervals over prompts"
                        .to_owned(),
                    ("speed-up", BarUnit::Times),
                ),
                |outcome| outcome.estimates.decode.pooled,
            )),
        });
    }
    figures
}

/// Creates a group of bars for each task.
fn bars(
    conditions: &[&Condition<'_>],
    (title, subtitle, (y_label, unit)): (String, String, (&str, BarUnit)),
    figure: impl Fn(&Outcome<'_>) -> Estimate,
) -> GroupedBars {
    let names = conditions.first().map_or(Vec::new(), |condition| {
        let outcomes = condition.outcomes.iter();
        outcomes.map(|outcome| outcome.draft.to_owned()).collect()
    });
    let groups = conditions.iter().map(|condition| BarGroup {
        label: condition.short_title(),
        bars: condition
            .outcomes
            .iter()
            .map(|outcome| {
                let Estimate { value, low, high } = figure(outcome);
                value.is_finite().then_some(Bar {
                    value,
                    interval: (low.is_finite() && high.is_finite()).then_some((low, high)),
                })
            })
            .collect(),
    });
    GroupedBars {
        title,
        subtitle,
        x_label: "held-out prompts (image tokens)".to_owned(),
        y_label: y_label.to_owned(),
        unit,
        series: names
            .into_iter()
            .enumerate()
            .map(|(i, name)| (name, i))
            .collect(),
        groups: groups.collect(),
    }
}
