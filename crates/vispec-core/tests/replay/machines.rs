//! Costs of passes, in units of a pass over one row.

use std::sync::Arc;

use vispec_core::{ContextCost, Cost, CostTable, DraftCosts, TargetCosts};

pub struct Machine {
    pub name: &'static str,
    pub costs: Arc<CostTable>,
}

struct Measured<'a> {
    prefill: f64,
    verify: &'a [(usize, f64)],
    read: f64,
    commit: f64,
    expand: &'a [(usize, f64)],
}

impl Measured<'_> {
    fn table(&self) -> Arc<CostTable> {
        let costs = |costs: &[(usize, f64)]| {
            let cost = |&(rows, seconds): &(usize, f64)| Cost { rows, seconds };
            costs.iter().map(cost).collect()
        };
        let target = TargetCosts {
            prefill: self.prefill,
            verify: costs(self.verify),
            context: ContextCost::default(),
        };
        let draft = DraftCosts {
            read: self.read,
            commit: self.commit,
            expand: costs(self.expand),
        };
        Arc::new(CostTable::new(target, Some(draft)).unwrap())
    }
}

/// Returns one machine measured on two cores with AVX-512, and two synthetic ones: a device with
/// spare rows and a processor without.
pub fn machines() -> Vec<Machine> {
    let small = [
        (1, 1.0),
        (2, 1.07),
        (3, 1.08),
        (4, 1.19),
        (6, 1.33),
        (8, 1.47),
        (12, 2.34),
        (16, 2.53),
        (32, 3.68),
        (64, 6.65),
    ];
    let part_of_vocabulary = Measured {
        prefill: 0.075,
        verify: &small,
        read: 0.004,
        commit: 0.078,
        expand: &[(1, 0.042), (2, 0.048), (4, 0.06), (8, 0.09)],
    };
    let whole_vocabulary = Measured {
        commit: 0.22,
        expand: &[(1, 0.19), (2, 0.205), (4, 0.236), (8, 0.308)],
        ..part_of_vocabulary
    };
    let tiny = Measured {
        prefill: 0.214,
        verify: &[
            (1, 1.0),
            (2, 1.01),
            (3, 1.26),
            (4, 1.51),
            (6, 2.1),
            (8, 3.0),
            (16, 5.2),
            (64, 20.4),
        ],
        read: 0.039,
        commit: 0.18,
        expand: &[(1, 0.215), (2, 0.253), (4, 0.343), (8, 0.582)],
    };
    let wide = Measured {
        prefill: 0.02,
        verify: &[(1, 1.0), (64, 1.3)],
        read: 0.002,
        commit: 0.06,
        expand: &[(1, 0.05), (8, 0.055)],
    };
    let narrow = Measured {
        prefill: 0.29,
        verify: &[
            (1, 1.0),
            (2, 1.26),
            (3, 1.55),
            (4, 1.95),
            (8, 3.2),
            (16, 6.4),
            (64, 25.0),
        ],
        read: 0.004,
        commit: 0.1,
        expand: &[(1, 0.09), (8, 0.15)],
    };
    let machine = |name, measured: &Measured<'_>| Machine {
        name,
        costs: measured.table(),
    };
    vec![
        machine("SmolLM2-135M, 8192 draft tokens", &part_of_vocabulary),
        machine("SmolLM2-135M, all draft tokens", &whole_vocabulary),
        machine("tiny pair", &tiny),
        machine("many rows for one", &wide),
        machine("each row costs", &narrow),
    ]
}
