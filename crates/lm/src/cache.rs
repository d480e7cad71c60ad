//! Keys and values of the tokens so far.

use anyo_core::{Error, Result};
use tch::{Tensor, no_grad};

/// Smallest number of positions that room is made for.
const FIRST_ROOM: i64 = 64;

/// Keys and values of one layer, `[B,Hkv,P,Dh]` with room for more positions than are filled.
#[derive(Debug)]
struct Layer {
    keys: Tensor,
    values: Tensor,
}

/// The cache of one batch: for every layer the rotated keys and the values. No gradient flows through it.
#[derive(Debug)]
pub struct KvCache {
    rows: i64,
    len: i64,
    max: i64,
    layers: Vec<Option<Layer>>,
    /// Embedded inputs `[B,P,D]` of a LongRoPE model while its context is short: crossing the original length changes
    /// the frequencies of every token, so all are computed again.
    pub(crate) inputs: Option<Tensor>,
}

impl KvCache {
    /// An empty cache of `rows` rows for `n_layers` layers, for at most `max` positions.
    pub(crate) fn new(rows: usize, n_layers: usize, max: usize) -> Self {
        let layers = (0..n_layers).map(|_| None).collect();
        Self { rows: rows as i64, len: 0, max: max as i64, layers, inputs: None }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Number of positions filled, pads included.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no position is filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all but the first `len` positions; the memory stays.
    pub fn truncate(&mut self, len: usize) {
        if (len as i64) < self.len {
            self.len = len as i64;
            self.inputs = self.inputs.as_ref().map(|x| x.narrow(1, 0, len as i64));
        }
    }

    /// Bytes of all tensors, room for further positions included.
    pub fn bytes(&self) -> usize {
        let tensors = self.layers.iter().flatten().flat_map(|layer| [&layer.keys, &layer.values]);
        tensors.chain(&self.inputs).map(|t| t.numel() * t.kind().elt_size_in_bytes()).sum()
    }

    /// Writes keys and values `[B,Hkv,S,Dh]` of `layer` behind the filled positions and returns all of them,
    /// `[B,Hkv,len + S,Dh]`. The length changes with [`KvCache::advance`], once all layers are through.
    pub(crate) fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (len, max) = (self.len, self.max);
        let Some(slot) = self.layers.get_mut(layer) else {
            return Err(Error::invalid(format!("the cache has no layer {layer}; it belongs to another model")));
        };
        no_grad(|| {
            let s = keys.size()[2];
            let total = len + s;
            let room = slot.as_ref().map_or(0, |l| l.keys.size()[2]);
            if room < total {
                let room = total.max((2 * room).max(total + total / 4).max(FIRST_ROOM).min(max));
                let grow = |new: &Tensor, old: Option<&Tensor>| -> Result<Tensor> {
                    let mut size = new.size();
                    size[2] = room;
                    let grown = Tensor::f_empty(&size, (new.kind(), new.device()))?;
                    if let Some(old) = old.filter(|_| len > 0) {
                        grown.f_narrow(2, 0, len)?.f_copy_(&old.f_narrow(2, 0, len)?)?;
                    }
                    Ok(grown)
                };
                let (old_keys, old_values) =
                    slot.as_ref().map_or((None, None), |l| (Some(&l.keys), Some(&l.values)));
                *slot = Some(Layer { keys: grow(keys, old_keys)?, values: grow(values, old_values)? });
            }
            let Some(layer) = slot.as_ref() else { return Err(Error::invalid("the cache has no room")) };
            layer.keys.f_narrow(2, len, s)?.f_copy_(keys)?;
            layer.values.f_narrow(2, len, s)?.f_copy_(values)?;
            Ok((layer.keys.f_narrow(2, 0, total)?, layer.values.f_narrow(2, 0, total)?))
        })
    }

    /// Counts `s` more positions as filled.
    pub(crate) fn advance(&mut self, s: usize) {
        self.len += s as i64;
    }

    /// Row i of the result is row `rows[i]`.
    pub(crate) fn select(&self, rows: &[i64]) -> Result<Self> {
        if let Some(&bad) = rows.iter().find(|&&row| row < 0 || row >= self.rows) {
            return Err(Error::invalid(format!("row {bad} of a cache with {} rows", self.rows)));
        }
        no_grad(|| {
            let pick = |t: &Tensor, axis: i64| -> Result<Tensor> {
                let index = Tensor::f_from_slice(rows)?.f_to_device(t.device())?;
                Ok(t.f_narrow(axis, 0, self.len)?.f_index_select(0, &index)?)
            };
            let mut layers = Vec::with_capacity(self.layers.len());
            for layer in &self.layers {
                layers.push(match layer {
                    Some(l) if self.len > 0 => Some(Layer { keys: pick(&l.keys, 2)?, values: pick(&l.values, 2)? }),
                    _ => None,
                });
            }
            let inputs = self.inputs.as_ref().map(|x| pick(x, 1)).transpose()?;
            Ok(Self { rows: rows.len() as i64, len: self.len, max: self.max, layers, inputs })
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn appending_growing_truncating_selecting() {
        let mut cache = KvCache::new(2, 1, 1000);
        let x = Tensor::arange(2 * 3 * 150 * 4, (Kind::Float, Device::Cpu)).view([2, 3, 150, 4]);
        let mut at = 0;
        for s in [5, 1, 1, 90, 53] {
            let part = x.narrow(2, at, s);
            let (k, v) = cache.append(0, &part, &(&part * 2.0)).unwrap();
            cache.advance(s as usize);
            at += s;
            assert_eq!(k, x.narrow(2, 0, at));
            assert_eq!(v, x.narrow(2, 0, at) * 2.0);
        }
        assert_eq!((cache.len(), cache.rows()), (150, 2));
        assert!(cache.bytes() >= 2 * x.numel() * 4);
        cache.truncate(4);
        let mut picked = cache.select(&[1, 1, 0]).unwrap();
        assert_eq!(picked.rows(), 3);
        let new = Tensor::zeros([3, 3, 1, 4], (Kind::Float, Device::Cpu));
        let (k, _) = picked.append(0, &new, &new).unwrap();
        assert_eq!(k.narrow(0, 0, 1).narrow(2, 0, 4), x.narrow(0, 1, 1).narrow(2, 0, 4));
        assert_eq!(k.narrow(0, 2, 1).narrow(2, 0, 4), x.narrow(0, 0, 1).narrow(2, 0, 4));
        assert!(cache.select(&[2]).unwrap_err().to_string().contains("row 2 of a cache with 2 rows"));
        assert!(cache.append(1, &new, &new).is_err());
    }
}
