//! The last layer where it is read: states at some places of a batch, for losses on answers and rankings from prompts.
//!
//! Up to the last layer every place matters to those behind it. In the last one, all places give keys and values, but
//! queries, output projection and MLP are needed only where somebody reads the state.

use anyo_core::{
    Error, Result,
    torch::{DropoutStream, dims},
};
use tch::{Tensor, no_grad};

use super::{
    CausalLm,
    layer::{Layer, Qkv, Shared},
};
use crate::{
    attention::{Visible, attend},
    causal::{Causal as _, LmInput},
    linear::Linear,
    pass::Pass,
    rope::Rotation,
};

/// P places of a batch of B rows and S places each, flat: row · S + position.
struct Places<'a> {
    flat: &'a [i64],
    at: Tensor,   // [P]: the same
    rows: Tensor, // [P]: their rows
    /// Queries stand in a rectangle `[B,W]`; where a row has fewer, some other place fills it and is read by nobody.
    queries: Tensor, // [B·W]: which of the P
    back: Tensor, // [P]: which of the B·W
    size: [i64; 2],
    rotation: Rotation, // [B,1,W,R]
    visible: Visible,   // [B,1,W,S]
}

impl<'a> Places<'a> {
    fn new(flat: &'a [i64], [b, s]: [i64; 2], shared: &Shared, like: &Tensor) -> Result<Self> {
        let mut of_row: Vec<Vec<i64>> = vec![Vec::new(); b as usize];
        for (i, &place) in flat.iter().enumerate() {
            match of_row.get_mut(usize::try_from(place / s).unwrap_or(usize::MAX)).filter(|_| place >= 0) {
                Some(row) => row.push(i as i64),
                None => {
                    return Err(Error::invalid(format!("place {place} is outside a batch of {b} rows of {s} places")));
                }
            }
        }
        let w = of_row.iter().map(Vec::len).max().unwrap_or(0);
        let (mut queries, mut positions) = (Vec::with_capacity(of_row.len() * w), Vec::new());
        let mut back = vec![0i64; flat.len()];
        for own in &of_row {
            for &i in own {
                back[i as usize] = queries.len() as i64;
                queries.push(i);
                positions.push(flat[i as usize] % s);
            }
            let missing = w - own.len();
            queries.extend(std::iter::repeat_n(0, missing));
            positions.extend(std::iter::repeat_n(0, missing));
        }
        let on_device =
            |list: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(list)?.f_to_device(like.device())?) };
        let rows: Vec<i64> = flat.iter().map(|place| place / s).collect();
        let size = [b, w as i64];
        let (rotation, visible) = no_grad(|| -> Result<_> {
            let positions = on_device(&positions)?;
            let visible = Visible::up_to(&positions.f_view([b, 1, w as i64, 1])?, s, like.kind())?;
            Ok((shared.rotation.of(&positions, size)?, visible))
        })?;
        let (at, rows) = (on_device(flat)?, on_device(&rows)?);
        Ok(Self { flat, at, rows, queries: on_device(&queries)?, back: on_device(&back)?, size, rotation, visible })
    }

    /// x `[B,S,D]` → `[1,P,D]`.
    fn pick(&self, x: &Tensor) -> Result<Tensor> {
        let d = x.size().last().copied().unwrap_or(0);
        Ok(x.f_reshape([-1, d])?.f_index_select(0, &self.at)?.f_unsqueeze(0)?)
    }

    /// x `[1,P,D]` → `[B,W,D]`.
    fn spread(&self, x: &Tensor) -> Result<Tensor> {
        let [b, w] = self.size;
        Ok(x.f_squeeze_dim(0)?.f_index_select(0, &self.queries)?.f_view([b, w, -1])?)
    }

    /// x `[B,W,D]` → `[1,P,D]`.
    fn gather(&self, x: &Tensor) -> Result<Tensor> {
        let d = x.size().last().copied().unwrap_or(0);
        Ok(x.f_reshape([-1, d])?.f_index_select(0, &self.back)?.f_unsqueeze(0)?)
    }
}

/// Lets `to` go on with the masks where `from` stands.
fn hand_over(from: &Option<DropoutStream>, to: &Option<DropoutStream>) {
    if let (Some(from), Some(to)) = (from, to) {
        to.rewind(from.position());
    }
}

impl Layer {
    /// [`Layer::forward`] without a cache, at some places alone: x `[B,S,D]` → `[1,P,D]`. Draws the dropout that the whole
    /// layer would draw there.
    fn forward_at(&self, x: &Tensor, shared: &Shared, places: &Places<'_>, pass: &Pass<'_>) -> Result<Tensor> {
        let gate = pass.gate.map(|gate| gate.f_index_select(0, &places.rows)).transpose()?; // [P,E]
        let here = Pass {
            dropout: pass.dropout.clone(),
            gate: gate.as_ref(),
            base_only: pass.base_only,
            rows: Some(places.flat),
            ..Pass::default()
        };
        let [h, n_kv, width] = self.heads;
        let (b, s, _) = x.size3()?;
        let normed = self.input_norm.forward(x)?;
        let (q, k, v) = match &self.qkv {
            Qkv::Split(q, k, v) => {
                let q = q.forward(&places.pick(&normed)?, &here);
                hand_over(&here.dropout, &pass.dropout);
                let [k, v] = Linear::forward_each([k, v], &normed, pass);
                (q, k, v)
            }
            Qkv::Fused(all) => {
                let all = all.forward(&normed, pass);
                let (q, kv) = (h * width, n_kv * width);
                (places.pick(&all.f_narrow(-1, 0, q)?)?, all.f_narrow(-1, q, kv)?, all.f_narrow(-1, q + kv, kv)?)
            }
        };
        hand_over(&pass.dropout, &here.dropout);
        let heads = |x: &Tensor, s: i64, n: i64| -> Result<Tensor> {
            Ok(x.f_reshape([b, s, n, width])?.f_transpose(1, 2)?) // [B,n,s,Dh]
        };
        let q = places.rotation.apply(&heads(&places.spread(&q)?, places.size[1], h)?)?;
        let (k, v) = (shared.rotation.apply(&heads(&k, s, n_kv)?)?, heads(&v, s, n_kv)?);
        let attention = self.o.forward(&places.gather(&attend(&q, &k, &v, &places.visible)?)?, &here);
        let out = self.mlp(places.pick(x)?.f_add(&attention)?, &here)?;
        hand_over(&here.dropout, &pass.dropout);
        Ok(out)
    }
}

impl CausalLm {
    /// [`Causal::hidden`](crate::Causal::hidden) of rows without a cache, read at the flat places (row · S + position)
    /// `places` alone: `[P,D]`, the same up to rounding, with the same dropout on the CPU. Most of the last layer is not
    /// computed elsewhere; rows with a mask, documents or a sliding window in the last layer take the whole way.
    ///
    /// # Errors
    /// As [`Causal::hidden`](crate::Causal::hidden), and when a place is outside the batch.
    pub fn hidden_at(&self, input: &LmInput, places: &[i64], pass: &Pass<'_>) -> Result<Tensor> {
        let d = self.config().hidden_size as i64;
        if places.is_empty() {
            return Ok(Tensor::f_zeros([0, d], (self.kind(), self.device()))?);
        }
        let last = self.layers.split_last().filter(|(last, _)| !last.windowed);
        let Some((last, before)) = last.filter(|_| input.mask.is_none() && input.documents.is_none()) else {
            let at = Tensor::f_from_slice(places)?.f_to_device(self.device())?;
            return Ok(self.hidden(input, None, pass)?.f_reshape([-1, d])?.f_index_select(0, &at)?);
        };
        self.check_pass(input, pass)?;
        let [b, s] = dims("ids", &input.ids, ["B", "S"])?;
        let (mut x, shared) = self.prepare(input, 0)?;
        let places = Places::new(places, [b, s], &shared, &x)?;
        for layer in before {
            x = layer.forward(&x, &shared, None, pass)?;
        }
        Ok(self.norm.forward(&last.forward_at(&x, &shared, &places, pass)?)?.f_squeeze_dim(0)?)
    }
}
