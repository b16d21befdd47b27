//! One self-contained HTML page with the whole report, without scripts, for light and dark schemes.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::collection::{Cell, Collection};
use crate::plots::{Figure, Theme};
use crate::record::{CellStatus, Shard};
use crate::tables::{Table, escape_html};

/// Bytes in a GiB.
const GIB: f64 = (1_u64 << 30) as f64;

const STYLE: &str = "
body{background:var(--ground);color:var(--ink);font:15px/1.5 Inter,system-ui,-apple-system,\
'Segoe UI',Helvetica,Arial,sans-serif;margin:0 auto;max-width:1080px;padding:2rem 1.25rem}
h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.2rem;margin:2.5rem 0 .5rem}
p{max-width:46rem}.muted{color:var(--muted)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;
font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--grid);text-align:left;white-space:nowrap}
.n{text-align:right}figure{margin:1.5rem 0}svg{max-width:100%;height:auto}
.warn{border-left:4px solid var(--series-5);padding:.25rem 1rem;margin:1.5rem 0}
";

/// Renders the page.
pub(crate) fn page(collection: &Collection, tables: &[Table], figures: &[Figure]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Measurements</title><style>{}{STYLE}</style></head><body>\n\
         <h1>Measurements</h1>\n",
        Theme::page_css()
    );
    let records: usize = collection
        .cells
        .iter()
        .map(|cell| cell.measurements.records())
        .sum();
    let _ = writeln!(
        page,
        "<p class=\"muted\">{} cells, {records} records. tau counts accepted draft tokens per \
         cycle without the bonus token; tokens per cycle is tau + 1.</p>",
        collection.cells.len()
    );
    page += &warnings(collection);
    page += &machines(collection);
    let (first, others) = tables.split_at(tables.len().min(1));
    let add_table = |page: &mut String, table: &Table| {
        let (title, note) = (escape_html(&table.title), escape_html(&table.note));
        let _ = write!(page, "<h2>{title}</h2>\n<p>{note}</p>\n{}", table.to_html());
    };
    for table in first {
        add_table(&mut page, table);
    }
    if !figures.is_empty() {
        page += "<h2>Plots</h2>\n";
    }
    for figure in figures {
        let _ = writeln!(page, "<figure>{}</figure>", figure.to_svg(Theme::Page));
    }
    for table in others {
        add_table(&mut page, table);
    }
    page + &settings(collection) + "</body></html>\n"
}

/// Lists what is missing, for the top of the page.
fn warnings(collection: &Collection) -> String {
    let mut items = String::new();
    for message in incomplete(collection) {
        let _ = writeln!(items, "<li>{}</li>", escape_html(&message));
    }
    if items.is_empty() {
        return "<p>All cells are complete.</p>\n".to_owned();
    }
    format!("<div class=\"warn\"><p><b>Not complete</b></p><ul>\n{items}</ul></div>\n")
}

/// Returns a line for each cell that is incomplete, failed, could not be read, or lacks shards.
pub(crate) fn incomplete(collection: &Collection) -> Vec<String> {
    let cells = collection.cells.iter().filter_map(|cell| {
        let CellStatus::Incomplete {
            done,
            failed,
            planned,
        } = cell.status
        else {
            return None;
        };
        let mut line = format!("{}: {done} of {planned} prompts", cell.dir.display());
        if failed > 0 {
            let _ = write!(line, ", {failed} failed");
            if let Some((prompt, message)) = cell.failed.first_key_value() {
                let _ = write!(line, " ({prompt}: {message})");
            }
        }
        line += &how_it_ended(cell);
        Some(line)
    });
    let problems = collection
        .problems
        .iter()
        .map(|problem| format!("{}: {}", problem.dir.display(), problem.message));
    let shards = collection.missing_shards().into_iter().map(|shards| {
        let missing: Vec<String> = shards.missing.iter().map(Shard::to_string).collect();
        format!(
            "{}: no records of shard {}",
            shards.cell,
            missing.join(", ")
        )
    });
    cells.chain(problems).chain(shards).collect()
}

fn how_it_ended(cell: &Cell) -> String {
    let Some(failure) = &cell.run_failure else {
        return String::new();
    };
    let code = failure.exit_code.map_or_else(
        || "no exit code".to_owned(),
        |code| format!("exit code {code}"),
    );
    let last = failure.stderr_tail.last().cloned().unwrap_or_default();
    format!("; the last run ended with {code}: {last}")
}

/// Returns where and when cells were measured: a line for each machine, with the days of its cells
/// and the program versions.
pub(crate) fn origins(collection: &Collection) -> Vec<String> {
    collection
        .machines()
        .into_iter()
        .map(|machine| {
            let cells = collection.cells.iter();
            let headers = cells.map(|cell| &cell.header);
            let own: Vec<_> = headers.filter(|h| &h.machine == machine).collect();
            let days: BTreeSet<String> = own
                .iter()
                .map(|header| header.started_at.strftime("%Y-%m-%d").to_string())
                .collect();
            let versions: BTreeSet<&str> = own.iter().map(|h| h.program_version.as_str()).collect();
            format!(
                "{} x {}, {}, {:.1} GiB of memory, {}; {}; version {}",
                machine.cores,
                machine.cpu_model,
                machine.isa,
                machine.memory_bytes as f64 / GIB,
                machine.os,
                Vec::from_iter(days).join(", "),
                Vec::from_iter(versions).join(", "),
            )
        })
        .collect()
}

fn machines(collection: &Collection) -> String {
    let mut text = "<h2>Machine</h2>\n<ul>\n".to_owned();
    for line in origins(collection) {
        let _ = writeln!(text, "<li>{}</li>", escape_html(&line));
    }
    text + "</ul>\n"
}

/// Lists every cell with its settings, for the end of the page.
fn settings(collection: &Collection) -> String {
    let columns = [
        "cell", "target", "method", "draft", "num_q", "tree", "T", "seed", "task", "dtype",
        "device", "records", "program", "started", "peak RSS",
    ];
    let rows = collection.cells.iter().map(|cell| {
        let header = &cell.header;
        let settings = &header.settings;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            header.cell_id.clone(),
            settings.target.clone(),
            settings.method.to_string(),
            or_dash(settings.draft.clone()),
            or_dash(header.num_q.map(|num_q| num_q.to_string())),
            or_dash(settings.tree.map(|tree| tree.to_string())),
            settings.temperature.to_string(),
            settings.seed.to_string(),
            settings.task.clone(),
            settings.dtype.clone(),
            settings.device.clone(),
            cell.measurements.records().to_string(),
            header.program_version.clone(),
            format!("{:.0}", header.started_at),
            format!("{:.2} GiB", cell.measurements.peak_rss_bytes as f64 / GIB),
        ]
    });
    let table = Table {
        name: "cells".to_owned(),
        title: "Cells".to_owned(),
        note: String::new(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: rows.collect(),
        text_columns: columns.len(),
    };
    format!("<h2>Cells</h2>\n{}", table.to_html())
}
