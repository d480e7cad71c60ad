//! Collaborative embedding distillation (spec section 3): the teacher's item vectors inside the student's tables, and two
//! baselines that use them otherwise.
//!
//! Axes: N items, T width of a teacher's vector, D width of a student's table.

use anyo_core::{Error, Result, torch::Init};
use anyo_student::{EXTRA_PREFIX, Student, Tables};
use tch::{Device, Kind, Tensor, no_grad};

use crate::config::{EmbeddingConfig, EmbeddingName, Side};

/// The teacher's vectors at work.
#[derive(Debug)]
pub enum Vectors {
    /// In one or two of the student's tables.
    Fused(Vec<Fused>),
    /// As the aim of a penalty.
    Hint(Hint),
}

/// One table of the student with the projected vectors in it: `e_i = b_i + ed_weight · g(z_i)`, g linear with a bias.
///
/// The pad's row has z = 0, as released; nothing reads it.
#[derive(Debug)]
pub struct Fused {
    /// Name of the student's own table b.
    table: String,
    input: bool,
    output: bool,
    /// `[N or N + 1, T]`, without gradient.
    vectors: Tensor,
    weight: Tensor, // [D, T]
    bias: Tensor,   // [D]
    ed_weight: f64,
    offset: bool,
}

impl Fused {
    /// The table that stands in for the student's own `[N, D]`.
    fn table(&self, own: &Tensor) -> Tensor {
        // The factor goes to the small matrices.
        let g = self.vectors.linear(&(&self.weight * self.ed_weight), Some(&(&self.bias * self.ed_weight)));
        if self.offset { own + g } else { g }
    }
}

/// A penalty `ed_weight · mean over the targets of |P e + c - z|² / T` on the input vectors e of the targets (FitNets'
/// hint; the released comparison calls it Hint).
#[derive(Debug)]
pub struct Hint {
    vectors: Tensor, // [N, T]
    weight: Tensor,  // [T, D]
    bias: Tensor,    // [T]
    ed_weight: f64,
}

impl Hint {
    /// The penalty for target items `[N]`; with a graph.
    pub fn penalty(&self, items: &Tensor, positives: &[i32]) -> Tensor {
        let ids = Tensor::from_slice(positives).to_kind(Kind::Int64).to_device(items.device());
        let student = items.index_select(0, &ids).linear(&self.weight, Some(&self.bias)); // [N,T]
        (student - self.vectors.index_select(0, &ids)).square().mean(Kind::Float) * self.ed_weight
    }
}

/// Name of the student's parameter that shares its memory with `tensor`.
fn name_of(student: &Student, tensor: &Tensor) -> Result<String> {
    let mut named = student.params.named();
    let found = named.find(|(_, own)| own.data_ptr() == tensor.data_ptr()).map(|(name, _)| name.to_owned());
    found.ok_or_else(|| Error::invalid("a table of the student is none of its parameters"))
}

/// Whether the student scores with the table that enters it.
pub fn is_tied(student: &Student) -> bool {
    student.network.items().data_ptr() == student.network.head().weight.data_ptr()
}

/// The rows of `vectors` `[N, T]` on `device`, with zeros below up to `rows`.
fn padded(vectors: &Tensor, rows: i64, device: Device) -> Result<Tensor> {
    let missing = rows - vectors.size()[0];
    let below = Tensor::f_zeros([missing.max(0), vectors.size()[1]], (Kind::Float, vectors.device()))?;
    Ok(Tensor::f_cat(&[vectors, &below], 0)?.f_to_device(device)?)
}

/// Puts the teacher's vectors `[N, T]` to work as `config` says; adds the parameters of the maps to the student's.
///
/// `None` where there is nothing left to do while training: [`EmbeddingName::Init`] has changed the student's table.
///
/// # Errors
/// A side that a student with a tied head cannot do, or no memory.
pub fn attach(config: &EmbeddingConfig, vectors: &Tensor, student: &mut Student, seed: u64) -> Result<Option<Vectors>> {
    let tied = is_tied(student);
    let (input, output) = match config.side {
        Side::Auto => (true, tied),
        Side::Input => (true, false),
        Side::Output => (false, true),
        Side::Both => (true, true),
    };
    if tied && input != output {
        return Err(Error::invalid(TIED));
    }
    let tables = |student: &Student| -> Result<Vec<(String, Tensor, bool, bool)>> {
        let (items, head) = (student.network.items(), student.network.head().weight);
        let mut tables = Vec::new();
        if input {
            tables.push((name_of(student, items)?, items.shallow_clone(), true, tied));
        }
        if output && !tied {
            tables.push((name_of(student, &head)?, head, false, true));
        }
        Ok(tables)
    };
    match config.name {
        EmbeddingName::None => Ok(None),
        EmbeddingName::Fuse => {
            let mut fused = Vec::new();
            for (table, own, input, output) in tables(student)? {
                let [rows, d] = [own.size()[0], own.size()[1]];
                let t = vectors.size()[1];
                let name = |part: &str| format!("{EXTRA_PREFIX}{}.{part}", if input { "input" } else { "output" });
                let weight = student.params.create(name("weight"), &[d, t], Init::KaimingUniform, seed)?;
                let bias = student.params.create(name("bias"), &[d], Init::bias(t), seed)?;
                let vectors = padded(vectors, rows, own.device())?;
                let (ed_weight, offset) = (config.ed_weight, config.offset);
                fused.push(Fused { table, input, output, vectors, weight, bias, ed_weight, offset });
            }
            Ok(Some(Vectors::Fused(fused)))
        }
        EmbeddingName::Hint => {
            let (d, t) = (student.network.items().size()[1], vectors.size()[1]);
            let weight =
                student.params.create(format!("{EXTRA_PREFIX}hint.weight"), &[t, d], Init::KaimingUniform, seed)?;
            let bias = student.params.create(format!("{EXTRA_PREFIX}hint.bias"), &[t], Init::bias(d), seed)?;
            let vectors = vectors.f_to_device(student.params.device())?;
            Ok(Some(Vectors::Hint(Hint { vectors, weight, bias, ed_weight: config.ed_weight })))
        }
        EmbeddingName::Init => {
            for (_, own, ..) in tables(student)? {
                initialise(&own, vectors)?;
            }
            Ok(None)
        }
    }
}

/// What to say where a tied head is asked for one side only.
pub(crate) const TIED: &str = "distill.embedding.side: the student scores with the table that enters it, so the teacher's vectors are on both sides";

/// Fills the first `min(D, T)` columns of the table's item rows with the principal components of `vectors`, scaled so that
/// the whole keeps its standard deviation; further columns and the pad stay as they were drawn.
fn initialise(table: &Tensor, vectors: &Tensor) -> Result<()> {
    no_grad(|| {
        let n = vectors.size()[0];
        let components = principal(vectors, table.size()[1].min(vectors.size()[1]))?; // [N,C]
        let c = components.size()[1];
        let std = |x: &Tensor| x.to_kind(Kind::Double).std(false).double_value(&[]);
        let mut place = table.narrow(0, 0, n).narrow(1, 0, c);
        let scale = std(&place) / std(&components).max(1e-30);
        place.f_copy_(&(components * scale))?;
        Ok(())
    })
}

/// The first `c` principal components of the rows of `x` `[N, T]`, `[N, c]`. The sign of a component is arbitrary, so the
/// entry of its axis that is largest in size is made positive.
fn principal(x: &Tensor, c: i64) -> Result<Tensor> {
    let x = x.f_to_kind(Kind::Double)?;
    let centred = &x - x.mean_dim([0i64].as_slice(), true, Kind::Double);
    let covariance = centred.transpose(0, 1).f_matmul(&centred)?; // [T,T]
    let (_, axes) = covariance.f_linalg_eigh("L")?; // ascending
    let t = axes.size()[1];
    let axes = axes.narrow(1, t - c, c).flip([1]); // [T,c], largest first
    let largest = axes.abs().argmax(0, true); // [1,c]
    let signs = axes.gather(0, &largest, false).sign();
    Ok(centred.f_matmul(&(axes * signs))?.f_to_kind(Kind::Float)?)
}

impl Vectors {
    /// The student's tables for a training step.
    pub fn tables(&self, student: &Student) -> Tables {
        let mut tables = Tables::default();
        let Self::Fused(fused) = self else { return tables };
        for part in fused {
            if let Some(own) = student.params.get(&part.table) {
                let table = part.table(own);
                if part.output {
                    tables.head = Some(table.shallow_clone());
                }
                if part.input {
                    tables.items = Some(table);
                }
            }
        }
        tables
    }

    /// The student's own tables with everything inside, by name.
    pub fn fold(&self, student: &Student) -> Vec<(String, Tensor)> {
        let Self::Fused(fused) = self else { return Vec::new() };
        let fold = |part: &Fused| Some((part.table.clone(), part.table(student.params.get(&part.table)?)));
        no_grad(|| fused.iter().filter_map(fold).collect())
    }
}
