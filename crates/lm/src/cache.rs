//! Keys and values of the tokens so far.

use anyo_core::{Error, Result};
use tch::{Device, Kind, Tensor, no_grad};

/// Smallest number of positions that room is made for.
const FIRST_ROOM: i64 = 64;

/// Keys and values of one layer, `[B,Hkv,P,Dh]` with room for more positions than are filled.
#[derive(Debug, Default)]
struct Layer {
    keys: Option<Tensor>,
    values: Option<Tensor>,
}

/// The cache of one batch: for every layer the rotated keys and the values. No gradient flows through it.
#[derive(Debug)]
pub struct KvCache {
    rows: i64,
    len: i64,
    max: i64,
    layers: Vec<Layer>,
    /// Embedded inputs `[B,P,D]` of a LongRoPE model, whose frequencies change for every token when the context crosses
    /// the original length: then all are computed again.
    inputs: Option<Tensor>,
    /// Which of the two sets of frequencies turned the keys.
    pub(crate) long: bool,
}

/// Writes `new` into `slot` behind the first `len` positions of `axis`, making room where there is none; gives the first
/// `len + s` positions.
fn write_behind(slot: &mut Option<Tensor>, new: &Tensor, axis: i64, len: i64, max: i64) -> Result<Tensor> {
    let total = len + new.size()[axis as usize];
    let buffer = make_room(slot, &new.size(), (new.kind(), new.device()), axis, len, max)?;
    buffer.f_narrow(axis, len, total - len)?.f_copy_(new)?;
    Ok(buffer.f_narrow(axis, 0, total)?)
}

/// A handle to the buffer in `slot` with room behind its first `len` positions of `axis` for a tensor of size `new`.
fn make_room(
    slot: &mut Option<Tensor>,
    new: &[i64],
    options: (Kind, Device),
    axis: i64,
    len: i64,
    max: i64,
) -> Result<Tensor> {
    let size_at = |t: &Tensor| t.size()[axis as usize];
    let total = len + new[axis as usize];
    let room = slot.as_ref().map_or(0, size_at);
    let buffer = match slot.take() {
        Some(buffer) if room >= total => buffer,
        old => {
            let room = room_for(total, room, max);
            let mut size = new.to_vec();
            size[axis as usize] = room;
            let grown = Tensor::f_empty(&size, options)?;
            if let Some(old) = old.filter(|_| len > 0) {
                grown.f_narrow(axis, 0, len)?.f_copy_(&old.f_narrow(axis, 0, len)?)?;
            }
            grown
        }
    };
    let handle = buffer.shallow_clone();
    *slot = Some(buffer);
    Ok(handle)
}

/// Positions to make room for when `total` are needed and there is room for `room`.
fn room_for(total: i64, room: i64, max: i64) -> i64 {
    total.max((2 * room).max(total + total / 4).max(FIRST_ROOM).min(max))
}

impl KvCache {
    /// An empty cache of `rows` rows for `n_layers` layers, for at most `max` positions.
    pub(crate) fn new(rows: usize, n_layers: usize, max: usize) -> Self {
        let layers = (0..n_layers).map(|_| Layer::default()).collect();
        Self { rows: rows as i64, len: 0, max: max as i64, layers, inputs: None, long: false }
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
        }
    }

    /// Bytes of all tensors, room for further positions included.
    pub fn bytes(&self) -> usize {
        let tensors = self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]).chain([&self.inputs]);
        tensors.flatten().map(|t| t.numel() * t.kind().elt_size_in_bytes()).sum()
    }

    /// Makes the room that the first `s` positions will ask for, in all layers at once. Later, between the activations of
    /// a pass, each layer's room would leave holes in the heap that nothing fits.
    pub(crate) fn reserve(&mut self, s: usize, [heads, width]: [usize; 2], options: (Kind, Device)) -> Result<()> {
        if self.len > 0 {
            return Ok(());
        }
        let size = [self.rows, heads as i64, room_for(s as i64, 0, self.max), width as i64];
        for slot in self.layers.iter_mut().flat_map(|layer| [&mut layer.keys, &mut layer.values]) {
            if slot.is_none() {
                *slot = Some(Tensor::f_empty(size, options)?);
            }
        }
        Ok(())
    }

    /// Writes keys and values `[B,Hkv,S,Dh]` of `layer` behind the filled positions and returns all of them,
    /// `[B,Hkv,len + S,Dh]`. The length changes with [`KvCache::advance`], once all layers are through.
    pub(crate) fn append(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<(Tensor, Tensor)> {
        let (len, max) = (self.len, self.max);
        let Some(layer) = self.layers.get_mut(layer) else {
            return Err(Error::invalid(format!("the cache has no layer {layer}; it belongs to another model")));
        };
        no_grad(|| {
            let keys = write_behind(&mut layer.keys, keys, 2, len, max)?;
            Ok((keys, write_behind(&mut layer.values, values, 2, len, max)?))
        })
    }

    /// The buffers of keys and values of `layer`, `[B,Hkv,P,Dh]`, with room behind the filled positions for what has the size
    /// `new` `[B,Hkv,S,Dh]`; the caller writes there.
    pub(crate) fn room(&mut self, layer: usize, new: &[i64], options: (Kind, Device)) -> Result<(Tensor, Tensor)> {
        let (len, max) = (self.len, self.max);
        let Some(layer) = self.layers.get_mut(layer) else {
            return Err(Error::invalid(format!("the cache has no layer {layer}; it belongs to another model")));
        };
        no_grad(|| {
            let keys = make_room(&mut layer.keys, new, options, 2, len, max)?;
            Ok((keys, make_room(&mut layer.values, new, options, 2, len, max)?))
        })
    }

    /// Writes the embedded inputs `[B,S,D]` of a LongRoPE model behind the earlier ones and returns all of them.
    pub(crate) fn append_inputs(&mut self, x: &Tensor) -> Result<Tensor> {
        let (len, max) = (self.len, self.max);
        no_grad(|| write_behind(&mut self.inputs, x, 1, len, max))
    }

    /// Counts `s` more positions as filled.
    pub(crate) fn advance(&mut self, s: usize) {
        self.len += s as i64;
    }

    /// Row i of the result is row `rows[i]`; the room for further positions is that of this cache.
    pub(crate) fn select(&self, rows: &[i64]) -> Result<Self> {
        if let Some(&bad) = rows.iter().find(|&&row| row < 0 || row >= self.rows) {
            return Err(Error::invalid(format!("row {bad} of a cache with {} rows", self.rows)));
        }
        no_grad(|| {
            let index = Tensor::f_from_slice(rows)?;
            let pick = |t: &Tensor, axis: i64| -> Result<Tensor> {
                let mut size = t.size();
                size[0] = rows.len() as i64;
                let picked = Tensor::f_empty(&size, (t.kind(), t.device()))?;
                let _ = t.f_narrow(axis, 0, self.len)?.f_index_select_out(
                    &picked.f_narrow(axis, 0, self.len)?,
                    0,
                    &index.f_to_device(t.device())?,
                )?;
                Ok(picked)
            };
            let filled = |t: &Option<Tensor>, axis: i64| -> Result<Option<Tensor>> {
                t.as_ref().filter(|_| self.len > 0).map(|t| pick(t, axis)).transpose()
            };
            let mut layers = Vec::with_capacity(self.layers.len());
            for layer in &self.layers {
                layers.push(Layer { keys: filled(&layer.keys, 2)?, values: filled(&layer.values, 2)? });
            }
            let inputs = filled(&self.inputs, 1)?;
            Ok(Self { rows: rows.len() as i64, len: self.len, max: self.max, layers, inputs, long: self.long })
        })
    }
}

#[cfg(test)]
mod tests {
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
