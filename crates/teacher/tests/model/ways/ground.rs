//! Distances between titles and what is said.

use super::*;

#[test]
fn grounding_measures_titles_as_the_bare_model_reads_them() {
    let world = World::new(&config(), &prompt_config());
    let speaker = world.speaker();
    let texts = ["Alien".to_owned(), " Aliens 3\nand more".to_owned(), String::new(), "\n\n".to_owned()];
    for state in [TitleState::Last, TitleState::Mean] {
        let make = || Grounding::new(&speaker, RankSettings { batch: 3, ..HYBRID }, state, &mut |_| Ok(())).unwrap();
        let before = make();
        randomise(&world.teacher);
        let after = make();
        assert_eq!(before.titles(), after.titles(), "adapters are off");
        // One title alone, with adapters that would need a gate.
        let encode = |text: &str| {
            let ids = [vec![0], ids(&world.tokenizer, text)].concat();
            let input = LmInput { ids: Tensor::from_slice(&ids).unsqueeze(0), ..LmInput::default() };
            let pass = Pass { base_only: true, ..Pass::default() };
            let states = no_grad(|| world.teacher.lm().hidden(&input, None, &pass)).unwrap().squeeze_dim(0);
            match state {
                TitleState::Last => states.get(-1),
                TitleState::Mean => states.narrow(0, 1, ids.len() as i64 - 1).mean_dim(0, false, Kind::Float),
            }
        };
        let titles = Tensor::stack(&TITLES.map(encode), 0);
        assert!(apart(&titles, after.titles()) < 1e-5);
        let (scores, empty) = after.scores(&texts).unwrap();
        assert_eq!(empty, 2);
        let middle = titles.mean_dim([0i64].as_slice(), false, Kind::Float);
        for (row, from) in [encode("Alien"), encode("Aliens 3"), middle.shallow_clone(), middle].iter().enumerate() {
            let off: Tensor = &titles - from;
            let wanted = off.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float).sqrt() * -1.0;
            assert!(apart(&scores.get(row as i64), &wanted) < 1e-4, "{row}");
        }
        assert_eq!(best(&of_row(&scores, 0)), 0);
        let histories: [&[u32]; 3] = [&[1, 2], &[5], &[3, 4, 1]];
        let grounded = after.ground(&histories).unwrap();
        assert_eq!(grounded.texts, speaker.next(&histories, &HYBRID).unwrap());
        assert_eq!(apart(&grounded.scores, &after.scores(&grounded.texts).unwrap().0), 0.0);
        let batch = Batch { users: &[0; 3], histories: &histories };
        assert_eq!(apart(&after.score(&batch).unwrap(), &grounded.scores), 0.0);
    }
}
