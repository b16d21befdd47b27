//! Losses and gradients of a batch.

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};
use vispec_kernels::in_pool;

use crate::data::PreparedSample;
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::loss::{Divergence, Head, HeadSums, HeadTerms, host, smooth_l1};
use crate::network::{
    DraftInputs, DraftNetwork, DraftRows, DraftedRows, Eagle3Network, MedusaNetwork, Network,
    Supervision, indices,
};
use crate::objective::{MedusaTargets, Objective};

/// The loss of a batch and its terms, as means over supervised rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// The minimised loss.
    pub loss: f64,
    /// Smooth L1 distance between hidden states, unweighted; 0 in stage 2, which does not use it.
    pub value: f64,
    /// Cross entropy or, in stage 2, L1 distance between distributions, unweighted. With
    /// training-time test, that of the first pass.
    pub divergence: f64,
    /// Ranking loss, unweighted.
    pub ranking: f64,
    /// Shares of positions at which the teacher's best token is among the draft's best 1, 2 and 3,
    /// for the first pass or the first head.
    pub top: [f64; 3],
    /// Number of supervised positions.
    pub supervised: usize,
    /// Number of tokens in the batch.
    pub tokens: usize,
}

/// The losses of a batch, with the graph for their gradients.
struct Graph {
    losses: Losses,
    /// A scalar with the same gradients as the loss.
    surrogate: Tensor<1>,
}

fn ratio(sum: f64, count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let count = count.max(1) as f64;
    sum / count
}

fn upload(values: &Array2<f32>, device: &Device) -> Tensor<2> {
    let shape = [values.nrows(), values.ncols()];
    let values: Vec<f32> = values.iter().copied().collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Concatenates the rows of all samples.
fn concatenate<'s>(parts: impl Iterator<Item = &'s Array2<f32>>, device: &Device) -> Tensor<2> {
    let parts = parts.map(|part| upload(part, device)).collect();
    Tensor::cat(parts, 0)
}

fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}

/// Returns the dot product of the outputs with the gradient of the loss with respect to them. It
/// has the same gradients as the loss, but its graph ends at the outputs.
fn surrogate(output: Tensor<2>, gradient: Tensor<2>) -> Tensor<1> {
    (output * gradient.autodiff()).sum()
}

impl Network {
    /// Computes the losses of a batch and the gradients of all parameters.
    ///
    /// # Errors
    /// [`TrainError::Device`] if values cannot be read back.
    pub fn backward(
        &self,
        samples: &[PreparedSample],
        objective: &Objective,
        head: &Head,
    ) -> Result<(Losses, Gradients), TrainError> {
        let rows: usize = samples.iter().map(|sample| sample.features.nrows()).sum();
        // About ten matrices with three products each: the forward pass and the gradients of both
        // factors.
        in_pool(30 * rows * head.hidden() * head.hidden(), || {
            let Graph { losses, surrogate } = self.graph(samples, objective, head)?;
            let tape = surrogate.backward();
            Ok((losses, Gradients::take(self, tape)))
        })
    }

    /// Computes the losses of a batch.
    ///
    /// # Errors
    /// Same as [`Network::backward`].
    pub fn losses(
        &self,
        samples: &[PreparedSample],
        objective: &Objective,
        head: &Head,
    ) -> Result<Losses, TrainError> {
        Ok(self.graph(samples, objective, head)?.losses)
    }

    fn graph(
        &self,
        samples: &[PreparedSample],
        objective: &Objective,
        head: &Head,
    ) -> Result<Graph, TrainError> {
        let mut graph = match self {
            Self::Draft(network) => draft_graph(network, samples, objective, head)?,
            Self::Eagle3(network) => eagle3_graph(network, samples, objective, head)?,
            Self::Medusa(network) => medusa_graph(network, samples, objective, head)?,
        };
        graph.losses.tokens = samples
            .iter()
            .map(|sample| sample.features.nrows() + 1)
            .sum();
        Ok(graph)
    }
}

/// The inputs of a draft network for one batch, and their targets.
struct DraftBatch {
    inputs: DraftInputs,
    /// The supervised rows of each pass.
    drafted: DraftedRows,
    /// The targets `[supervised, hidden]` of the first pass.
    target: Tensor<2>,
}

impl DraftBatch {
    /// # Errors
    /// [`TrainError::SampleShape`] if nothing is supervised.
    fn new(
        samples: &[PreparedSample],
        n_queries: usize,
        n_passes: usize,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let masks: Vec<Vec<bool>> = samples.iter().map(|s| s.image_mask.clone()).collect();
        let rows = DraftRows::new(&masks, n_queries);
        let supervision: Vec<Supervision<'_>> = samples
            .iter()
            .map(|sample| Supervision {
                supervised: &sample.supervised,
                answered: &sample.answered,
            })
            .collect();
        let drafted = DraftedRows::new(&rows, &supervision, n_passes);
        let aims = &drafted.passes[0].targets;
        if aims.is_empty() {
            return Err(nothing_supervised(samples));
        }
        let target = concatenate(samples.iter().map(|s| &s.target), device);
        Ok(Self {
            inputs: DraftInputs {
                embeds: concatenate(samples.iter().map(|s| &s.embeds), device).autodiff(),
                features: concatenate(samples.iter().map(|s| &s.features), device).autodiff(),
                rows,
            },
            target: target.select(0, indices(aims, device)),
            drafted,
        })
    }
}

fn draft_graph(
    network: &DraftNetwork,
    samples: &[PreparedSample],
    objective: &Objective,
    head: &Head,
) -> Result<Graph, TrainError> {
    let device = head.device();
    let batch = DraftBatch::new(samples, network.n_queries(), 1, &device)?;
    let supervised = &batch.drafted.passes[0].supervised;
    let n_rows = supervised.len();
    let (n_unrolled, value_weight, terms) = terms(objective, n_rows)?;
    let rows = indices(supervised, &device).autodiff();
    let outputs: Vec<Tensor<2>> = network
        .unroll(&batch.inputs, n_unrolled)
        .into_iter()
        .map(|output| output.select(0, rows.clone()))
        .collect();
    let plain: Vec<Tensor<2>> = outputs.iter().map(|o| o.clone().inner()).collect();
    let (sums, mut gradients) = head.losses(&plain, &batch.target, &terms)?;

    let mut value = 0.0;
    if value_weight > 0.0 {
        let n_elements = n_rows * head.hidden();
        let (sum, slope) = smooth_l1(plain[0].clone(), batch.target.clone(), n_elements);
        value = ratio(scalar(sum), n_elements);
        gradients[0] = gradients[0].clone() + slope * value_weight;
    }
    let losses = losses(&sums, value, value_weight, &terms, n_rows);
    Ok(Graph {
        losses,
        surrogate: sum_surrogates(outputs, gradients, &device),
    })
}

fn wrong_objective(found: &Objective, expected: &str) -> TrainError {
    TrainError::Setting {
        field: "objective.kind",
        found: found.kind().to_owned(),
        expected: expected.to_owned(),
    }
}

/// Returns the error for a batch without supervised rows. With a single query no row of an image is
/// left, so this can happen.
fn nothing_supervised(samples: &[PreparedSample]) -> TrainError {
    let ids: Vec<&str> = samples.iter().map(|sample| sample.id.as_str()).collect();
    TrainError::SampleShape {
        id: ids.join(", "),
        quantity: "number of supervised positions outside of images",
        found: 0,
        expected: 1,
    }
}

fn eagle3_graph(
    network: &Eagle3Network,
    samples: &[PreparedSample],
    objective: &Objective,
    head: &Head,
) -> Result<Graph, TrainError> {
    let Objective::TestTime { passes, decay } = *objective else {
        return Err(wrong_objective(objective, "test_time for an EAGLE-3 draft"));
    };
    let device = head.device();
    let batch = DraftBatch::new(samples, network.n_queries(), passes, &device)?;
    let drafted = &batch.drafted;
    let teacher = head.teacher(&batch.target)?;
    // The targets of later passes are a subset of those of the first.
    let aims = &drafted.passes[0].targets;
    let mut result = Losses::default();
    let (mut outputs, mut gradients) = (Vec::new(), Vec::new());
    let read = network.passes(&batch.inputs, drafted).into_iter();
    for (number, (read, pass)) in (0_i32..).zip(read.zip(&drafted.passes)) {
        let rows: Vec<usize> = pass
            .targets
            .iter()
            .filter_map(|target| aims.binary_search(target).ok())
            .collect();
        if rows.is_empty() {
            continue;
        }
        let terms = HeadTerms {
            divergence: Divergence::CrossEntropy,
            divergence_weight: decay.powi(number),
            ranking_weight: 0.0,
            rows: rows.len(),
        };
        let sums = if let Some(own) = network.head() {
            let logits = own.forward(read);
            let scored = host(logits.clone().inner())?;
            let (sums, slopes) = head.compare(&teacher, &rows, scored, &terms);
            let slopes = TensorData::new(slopes, logits.dims());
            gradients.push(Tensor::from_data(slopes, &device));
            outputs.push(logits);
            sums
        } else {
            let scored = head.logits(read.clone().inner())?;
            let (sums, slopes) = head.compare(&teacher, &rows, scored, &terms);
            gradients.push(head.back_through(&slopes, rows.len()));
            outputs.push(read);
            sums
        };
        let of_pass = losses(&sums, 0.0, 0.0, &terms, rows.len());
        if number == 0 {
            result = of_pass;
        } else {
            result.loss += of_pass.loss;
        }
    }
    Ok(Graph {
        losses: result,
        surrogate: sum_surrogates(outputs, gradients, &device),
    })
}

fn sum_surrogates(
    outputs: Vec<Tensor<2>>,
    gradients: Vec<Tensor<2>>,
    device: &Device,
) -> Tensor<1> {
    outputs
        .into_iter()
        .zip(gradients)
        .map(|(output, gradient)| surrogate(output, gradient))
        .reduce(|sum, next| sum + next)
        .unwrap_or_else(|| Tensor::zeros([1], device).autodiff())
}

/// Returns the number of unrolled passes, the weight of the distance between hidden states, and the
/// terms through the head.
fn terms(objective: &Objective, rows: usize) -> Result<(usize, f64, HeadTerms), TrainError> {
    Ok(match *objective {
        Objective::TestTime { .. } => {
            return Err(wrong_objective(
                objective,
                "stage1, stage2 or medusa for a draft other than EAGLE-3",
            ));
        }
        Objective::Stage1 {
            value_weight,
            probability_weight,
            ranking_weight,
        } => {
            let terms = HeadTerms {
                divergence: Divergence::CrossEntropy,
                divergence_weight: probability_weight,
                ranking_weight: probability_weight * ranking_weight,
                rows,
            };
            (0, value_weight, terms)
        }
        Objective::Stage2 {
            unrolled_passes,
            probability_weight,
            ranking_weight,
        } => {
            let terms = HeadTerms {
                divergence: Divergence::L1,
                divergence_weight: probability_weight,
                ranking_weight,
                rows: rows * (1 + unrolled_passes),
            };
            (unrolled_passes, 0.0, terms)
        }
        Objective::Medusa {
            value_weight,
            probability_weight,
            ..
        } => {
            let terms = HeadTerms {
                divergence: Divergence::CrossEntropy,
                divergence_weight: probability_weight,
                ranking_weight: 0.0,
                rows,
            };
            (0, value_weight, terms)
        }
    })
}

fn losses(
    sums: &HeadSums,
    value: f64,
    value_weight: f64,
    terms: &HeadTerms,
    supervised: usize,
) -> Losses {
    let divergence = ratio(sums.divergence, terms.rows);
    let ranking = ratio(sums.ranking, terms.rows);
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let top = sums.top.map(|n| ratio(n as f64, supervised));
    Losses {
        loss: value_weight * value
            + terms.divergence_weight * divergence
            + terms.ranking_weight * ranking,
        value,
        divergence,
        ranking,
        top,
        supervised,
        tokens: 0,
    }
}

/// Returns the hidden states that head number `ahead` reads, their targets, and the number of rows.
fn medusa_rows(
    samples: &[PreparedSample],
    ahead: usize,
    targets: MedusaTargets,
    device: &Device,
) -> (Tensor<2>, Tensor<2>, usize) {
    let mut read = Vec::new();
    let mut target = Vec::new();
    let mut n_rows = 0;
    for sample in samples {
        let last = sample.features.nrows();
        let rows: Vec<usize> = sample
            .supervised
            .iter()
            .copied()
            .filter(|position| match targets {
                MedusaTargets::Upstream => true,
                // The target state must belong to the answer, too.
                MedusaTargets::Shifted => {
                    position + ahead < last
                        && sample.supervised.binary_search(&(position + ahead)).is_ok()
                }
            })
            .collect();
        read.push(sample.features.select(Axis(0), &rows));
        let aimed: Vec<usize> = match targets {
            MedusaTargets::Upstream => rows.clone(),
            MedusaTargets::Shifted => rows.iter().map(|position| position + ahead).collect(),
        };
        let mut aim = sample.target.select(Axis(0), &aimed);
        if targets == MedusaTargets::Upstream {
            for (mut row, &position) in aim.rows_mut().into_iter().zip(&rows) {
                if position < ahead {
                    row.fill(0.0);
                }
            }
        }
        target.push(aim);
        n_rows += rows.len();
    }
    (
        concatenate(read.iter(), device),
        concatenate(target.iter(), device),
        n_rows,
    )
}

fn medusa_graph(
    network: &MedusaNetwork,
    samples: &[PreparedSample],
    objective: &Objective,
    head: &Head,
) -> Result<Graph, TrainError> {
    let device = head.device();
    let targets = match objective {
        Objective::Medusa { targets, .. } => *targets,
        _ => MedusaTargets::Shifted,
    };
    let parts: Vec<_> = (0..network.n_heads())
        .map(|ahead| medusa_rows(samples, ahead, targets, &device))
        .collect();
    let n_rows: usize = parts.iter().map(|(_, _, rows)| rows).sum();
    let (_, value_weight, terms) = terms(objective, n_rows)?;
    let n_elements = n_rows * head.hidden();
    let mut sums = HeadSums::default();
    let mut value = 0.0;
    let mut outputs = Vec::new();
    let mut gradients = Vec::new();
    for (ahead, (read, target, rows)) in parts.into_iter().enumerate() {
        if rows == 0 {
            continue;
        }
        let output = network.forward(ahead, read.autodiff());
        let plain = output.clone().inner();
        let (head_sums, mut head_gradients) =
            head.losses(std::slice::from_ref(&plain), &target, &terms)?;
        let (sum, slope) = smooth_l1(plain, target, n_elements);
        value += ratio(scalar(sum), n_elements);
        sums.divergence += head_sums.divergence;
        if ahead == 0 {
            sums.top = head_sums.top;
        }
        let gradient = head_gradients.remove(0) + slope * value_weight;
        outputs.push(output);
        gradients.push(gradient);
    }
    let supervised = samples.iter().map(|sample| sample.supervised.len()).sum();
    Ok(Graph {
        losses: losses(&sums, value, value_weight, &terms, supervised),
        surrogate: sum_surrogates(outputs, gradients, &device),
    })
}
