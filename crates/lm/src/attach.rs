//! Which linears get an adapter, and of what size.

use std::collections::BTreeSet;

use anyo_core::{Error, Result, torch::Params};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{
    gated::GatedLora,
    linear::{AdapterKind, Linear},
    lora::{Lora, LoraShape},
};

/// Settings of a LoRA, plain or gated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank R, at least 1.
    pub rank: i64,
    /// The added product is scaled by alpha / R.
    pub alpha: f64,
    /// Share of the adapter's inputs that training drops, in [0, 1).
    pub dropout: f64,
    /// Scale by alpha / √R instead (Kalajdzievski, 2023).
    pub rslora: bool,
    /// Which linears.
    pub targets: Targets,
    /// Another rank for linears whose name ends with a match of the pattern; the first that matches counts, as in PEFT.
    #[serde(default)]
    pub rank_pattern: Vec<(String, i64)>,
    /// Another alpha, likewise.
    #[serde(default)]
    pub alpha_pattern: Vec<(String, f64)>,
    /// Number of experts E of a gated adapter, a divisor of the rank, whose scale is alpha·E / R; none: plain LoRA.
    #[serde(default)]
    pub experts: Option<i64>,
}

/// Which linears get an adapter, as PEFT's `target_modules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Spelling", into = "Spelling")]
pub enum Targets {
    /// Last parts of names (`q_proj`, `self_attn.q_proj`) or whole names; each must match.
    Names(Vec<String>),
    /// A regular expression for the whole name; it must match a linear.
    Regex(String),
    /// All linears but the output embedding (`lm_head`), written `all-linear`.
    AllLinear,
}

/// Whether a target means a name.
type Test<'a> = Box<dyn Fn(&str) -> bool + 'a>;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Spelling {
    One(String),
    Many(Vec<String>),
}

impl From<Spelling> for Targets {
    fn from(spelling: Spelling) -> Self {
        match spelling {
            Spelling::One(word) if word == "all-linear" => Self::AllLinear,
            Spelling::One(pattern) => Self::Regex(pattern),
            Spelling::Many(names) => Self::Names(names),
        }
    }
}

impl From<Targets> for Spelling {
    fn from(targets: Targets) -> Self {
        match targets {
            Targets::AllLinear => Self::One("all-linear".into()),
            Targets::Regex(pattern) => Self::One(pattern),
            Targets::Names(names) => Self::Many(names),
        }
    }
}

/// What [`attach`] or [`crate::load_peft`] added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Names of the layers, in the model's order.
    pub layers: Vec<String>,
    /// Number of new parameters.
    pub n_parameters: usize,
}

/// Puts a new adapter called `adapter` (`default` where there is but one) on every targeted layer; its parameters are
/// added to `params` under PEFT's names, f32 and trainable. The model computes the same as before until they are trained.
///
/// # Errors
/// When a target matches no layer (the message lists what exists), a number is out of range, or a layer has such an
/// adapter already; no layer is changed then.
pub fn attach<'a>(
    linears: impl IntoIterator<Item = &'a mut Linear>,
    adapter: &str,
    config: &LoraConfig,
    params: &mut Params,
    seed: u64,
) -> Result<Attached> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(Error::invalid(problems.join("; ")));
    }
    let mut linears: Vec<&mut Linear> = linears.into_iter().collect();
    let names: Vec<&str> = linears.iter().map(|linear| linear.name()).collect();
    let chosen = config.targets.choose(&names)?;
    let sizes = Patterns::new(config)?;
    let shapes: Vec<LoraShape> = chosen.iter().map(|&i| sizes.shape(config, names[i])).collect::<Result<_>>()?;
    for &i in &chosen {
        linears[i].check_room(adapter, params)?;
    }
    let mut attached = Attached { layers: Vec::new(), n_parameters: 0 };
    for (&i, shape) in chosen.iter().zip(shapes) {
        let linear = &mut *linears[i];
        let size = (linear.out_features(), linear.in_features());
        let lora = Lora::create(linear.name(), size, adapter, shape, params, seed)?;
        attached.n_parameters += lora.a.numel() + lora.b.numel();
        attached.layers.push(linear.name().to_owned());
        linear.add_adapter(
            adapter,
            match config.experts {
                Some(n_experts) => AdapterKind::Gated(GatedLora { lora, n_experts }),
                None => AdapterKind::Lora(lora),
            },
        );
    }
    Ok(attached)
}

impl LoraConfig {
    /// All values out of range, in words; empty if none is.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.rank < 1 {
            problems.push(format!("rank must be at least 1, got {}", self.rank));
        }
        if !self.alpha.is_finite() || self.alpha <= 0.0 {
            problems.push(format!("alpha must be positive, got {}", self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            problems.push(format!("dropout must lie in [0, 1), got {}", self.dropout));
        }
        if matches!(&self.targets, Targets::Names(names) if names.is_empty()) {
            problems.push("targets is empty; name at least one linear or write all-linear".into());
        }
        problems.extend(
            self.rank_pattern
                .iter()
                .filter(|(_, rank)| *rank < 1)
                .map(|(pattern, rank)| format!("rank_pattern `{pattern}` must be at least 1, got {rank}")),
        );
        problems.extend(
            self.alpha_pattern
                .iter()
                .filter(|(_, a)| !a.is_finite() || *a <= 0.0)
                .map(|(pattern, alpha)| format!("alpha_pattern `{pattern}` must be positive, got {alpha}")),
        );
        if let Some(experts) = self.experts {
            if experts < 1 {
                problems.push(format!("experts must be at least 1, got {experts}"));
            }
            if self.rslora {
                problems.push(
                    "rslora and experts exclude each other: a gated adapter is scaled by alpha·experts/rank".into(),
                );
            }
        }
        problems
    }
}

impl Targets {
    /// Indices of the names that are meant, ascending.
    ///
    /// # Errors
    /// When a target matches none, or the expression cannot be read.
    pub fn choose(&self, names: &[&str]) -> Result<Vec<usize>> {
        let wanted: Vec<(String, Test<'_>)> = match self {
            Self::AllLinear => vec![("all-linear".into(), Box::new(|name| !ends_with(name, "lm_head")))],
            Self::Regex(pattern) => {
                let regex = full_match(pattern)?;
                vec![(pattern.clone(), Box::new(move |name| regex.is_match(name)))]
            }
            Self::Names(targets) => targets
                .iter()
                .map(|target| {
                    let matches: Test<'_> = Box::new(move |name| ends_with(name, target));
                    (target.clone(), matches)
                })
                .collect(),
        };
        let mut chosen = BTreeSet::new();
        let mut unmatched = Vec::new();
        for (target, matches) in wanted {
            let hits: Vec<usize> = (0..names.len()).filter(|&i| matches(names[i])).collect();
            if hits.is_empty() {
                unmatched.push(format!("`{target}`"));
            }
            chosen.extend(hits);
        }
        if unmatched.is_empty() {
            return Ok(chosen.into_iter().collect());
        }
        let suffixes: BTreeSet<&str> = names.iter().map(|name| name.rsplit('.').next().unwrap_or(name)).collect();
        let exist: Vec<&str> = suffixes.into_iter().collect();
        let fused = exist.iter().any(|name| ["qkv_proj", "gate_up_proj"].contains(name));
        let hint = if fused {
            "this model fuses projections: qkv_proj stands for q_proj, k_proj and v_proj, gate_up_proj for gate_proj and up_proj"
        } else {
            "take names from that list, whole names, one regular expression, or all-linear"
        };
        Err(Error::Invalid {
            message: format!(
                "no linear matches the target {}; the model's linears are {}",
                unmatched.join(", "),
                if exist.is_empty() { "none".into() } else { exist.join(", ") }
            ),
            hint: Some(hint.into()),
        })
    }
}

/// Whether `name` is `target` or ends with it after a dot.
fn ends_with(name: &str, target: &str) -> bool {
    name.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn full_match(pattern: &str) -> Result<Regex> {
    compile(pattern, &format!(r"\A(?:{pattern})\z"))
}

fn compile(pattern: &str, whole: &str) -> Result<Regex> {
    Regex::new(whole).map_err(|error| Error::Invalid {
        message: format!("the pattern `{pattern}` is not a regular expression that can be used: {error}"),
        hint: Some("look-around and back references are not supported; a list of names is another way".into()),
    })
}

/// Compiled `rank_pattern` and `alpha_pattern`.
pub(crate) struct Patterns {
    ranks: Vec<(Regex, i64)>,
    alphas: Vec<(Regex, f64)>,
}

impl Patterns {
    pub(crate) fn new(config: &LoraConfig) -> Result<Self> {
        // As PEFT: the pattern, after the start or a dot, up to the end.
        let ending = |pattern: &str| compile(pattern, &format!(r"\A(?:.*\.)?(?:{pattern})\z"));
        Ok(Self {
            ranks: config.rank_pattern.iter().map(|(p, rank)| Ok((ending(p)?, *rank))).collect::<Result<_>>()?,
            alphas: config.alpha_pattern.iter().map(|(p, alpha)| Ok((ending(p)?, *alpha))).collect::<Result<_>>()?,
        })
    }

    /// Rank and scale for the layer called `name`.
    pub(crate) fn shape(&self, config: &LoraConfig, name: &str) -> Result<LoraShape> {
        let rank = self.ranks.iter().find(|(regex, _)| regex.is_match(name)).map_or(config.rank, |(_, rank)| *rank);
        let alpha =
            self.alphas.iter().find(|(regex, _)| regex.is_match(name)).map_or(config.alpha, |(_, alpha)| *alpha);
        let scale = match config.experts {
            Some(experts) if experts < 1 || rank % experts != 0 => {
                let message = format!("the rank {rank} of layer `{name}` cannot be split among {experts} experts");
                return Err(Error::Invalid {
                    message,
                    hint: Some("choose a rank that is a multiple of experts".into()),
                });
            }
            Some(experts) => alpha / (rank / experts) as f64,
            None if config.rslora => alpha / (rank as f64).sqrt(),
            None => alpha / rank as f64,
        };
        Ok(LoraShape { rank, scale, dropout: config.dropout })
    }
}
