"""Breaks each property of the method, and of the operations around it, once and shows that a test notices.

`make mutations`, or `python -m tests.mutations [WORD ...]`.

Each mutation is one replacement of text in a copy of the package; the named test must pass before and fail after. Properties are those of
docs/method.md, section 8. A word chooses the properties that contain it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COPIED = ("diger_core", "orchestration", "assets", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Mutation:
    """`old`, which occurs once in `room`/`file`, becomes `new`; `test` (below tests/`room`) then fails."""

    property: str
    file: str
    old: str
    new: str
    test: str
    room: str = "diger_core"

    @property
    def path(self) -> str:
        return f"{self.room}/{self.file}"

    @property
    def node(self) -> str:
        """The test, as pytest names it."""
        return f"tests/{self.room}/{self.test}"


def operations(property: str, file: str, old: str, new: str, test: str) -> Mutation:
    """A mutation of the orchestration."""
    return Mutation(property, file, old, new, test, "orchestration")


ASSIGN, NOISE, STEP, STATE, RESUME = (f"training/{name}.py" for name in ("assignment", "noise", "joint_step", "state", "resume"))
TABLE, BEAM = "ids/id_table.py", "recommender/beam.py"
FRQUD, SDUD, CONSTANT = (f"training/schedules/{name}.py" for name in ("frqud", "sdud", "constant"))
MEASURES = "verdict/gate/measures.py"
NOISY = "torch.addcmul(logits_VK, sigma_V[:, None], noise_MVK[level])"
SOFT = "history_V, soft_V if paths.teacher else hard_V, batch"
ZEROS = "\n\n    def sigma_level(self, state: State, level: int, det_Vj: Tensor) -> Tensor:\n        return torch."
BRUTE_FORCE = "recommender/test_beam.py::test_as_many_beams_as_items_gives_the_order_of_brute_force"
RESUMED = "training/test_training.py::test_killed_and_resumed_equals_uninterrupted[joint-7]"

MUTATIONS = [
    # Sampling
    Mutation("sigma = 0 gives argmin", ASSIGN, NOISY, NOISY.replace("sigma_V", "(sigma_V + 0.5)"),
             "training/test_assignment.py::test_sigma_zero_and_eval_mode_give_argmin_whatever_the_seed"),
    Mutation("eval mode gives argmin", ASSIGN, '.get(noise if tok.training else "none")', ".get(noise)",
             "training/test_assignment.py::test_sigma_zero_and_eval_mode_give_argmin_whatever_the_seed"),
    Mutation("noise is Gumbel(0, 1): its scale", NOISE, "return -torch.log(-torch.log1p(-u))", "return -1.03 * torch.log(-torch.log1p(-u))",
             "training/test_noise.py::test_gumbel_noise_passes_a_kolmogorov_smirnov_test"),
    Mutation("noise is Gumbel(0, 1): its side", NOISE, "return -torch.log(-torch.log1p(-u))", "return torch.log(-torch.log1p(-u))",
             "training/test_noise.py::test_gumbel_noise_passes_a_kolmogorov_smirnov_test"),
    Mutation("noise is Gumbel(0, sigma)", NOISE, "return -torch.log(-torch.log1p(-u))", "return 0.97 - torch.log(-torch.log1p(-u))",
             "training/test_noise.py::test_scaled_noise_is_gumbel_of_scale_sigma"),
    Mutation("noise is the item's, not the batch's", NOISE, "_mix(key.unsqueeze(-1) + (items_V.to(torch.int64) + 1) * _GOLDEN)",
             "_mix(key.unsqueeze(-1) + (torch.arange(len(items_V), device=device) + 1) * _GOLDEN)",
             "training/test_assignment.py::test_an_item_s_assignment_does_not_depend_on_the_batch_around_it"),
    Mutation("code frequencies match softmax(l / sigma)", ASSIGN, NOISY, NOISY.replace("sigma_V[", "sigma_V.square()["),
             "training/test_assignment.py::test_code_frequencies_match_the_softmax_of_logits_over_sigma_whatever_tau"),
    Mutation("code frequencies do not change with tau", ASSIGN, "sampled_V = noisy_VK.detach().argmax(1)",
             "sampled_V = torch.addcmul(logits_VK / tau, sigma_V[:, None], noise_MVK[level]).detach().argmax(1)",
             "training/test_assignment.py::test_code_frequencies_match_the_softmax_of_logits_over_sigma_whatever_tau"),
    Mutation("the forward P is the one-hot exactly", ASSIGN, "hard_VK + (y_VK - y_VK.detach())", "hard_VK + y_VK - y_VK.detach()",
             "training/test_assignment.py::test_the_forward_assignment_is_the_one_hot_exactly_in_fp32_and_bf16"),
    Mutation("the quantizer is fp32 under bf16", ASSIGN, "with torch.autocast(z_Ve.device.type, enabled=False):", "if True:",
             "training/test_assignment.py::test_the_forward_assignment_is_the_one_hot_exactly_in_fp32_and_bf16"),
    Mutation("z - sum E_j,k_j is the last residual", ASSIGN, "tok.codebooks[level].detach()[codes_V]", "tok.codebooks[level].detach()[det[-1]]",
             "training/test_assignment.py::test_the_residual_follows_the_code_that_is_fed_forward"),
    # Gradients
    Mutation("every codebook has a gradient", ASSIGN, "(noisy_VK / tau).softmax(1), codes_V", "(noisy_VK.detach() / tau).softmax(1), codes_V",
             "training/test_assignment.py::test_every_codebook_gets_a_finite_gradient_from_the_recommendation_loss"),
    Mutation("... the last one, too", ASSIGN, "(noisy_VK / tau).softmax(1), codes_V",
             "((noisy_VK if level < tok.levels - 1 else noisy_VK.detach()) / tau).softmax(1), codes_V",
             "training/test_assignment.py::test_every_codebook_gets_a_finite_gradient_from_the_recommendation_loss"),
    Mutation("path history alone is open", STEP, "history_V = soft_V if paths.history", "history_V = soft_V.detach() if paths.history",
             "training/test_training.py::test_each_path_alone_gives_every_codebook_a_gradient"),
    Mutation("path teacher alone is open", STEP, SOFT, SOFT.replace("soft_V if paths.teacher", "soft_V.detach() if paths.teacher"),
             "training/test_training.py::test_each_path_alone_gives_every_codebook_a_gradient"),
    Mutation("path labels alone is open", STEP, "soft=paths.labels", "soft=False",
             "training/test_training.py::test_each_path_alone_gives_every_codebook_a_gradient"),
    Mutation("all paths off: every tokenizer gradient is None", STEP, "soft=paths.labels", "soft=True",
             "training/test_training.py::test_with_all_paths_off_loss_gen_reaches_no_tokenizer_parameter"),
    Mutation("the encoder's gradient is None when frozen", STATE, '(name == "codebooks" or joint.train_encoder)', "True",
             "training/test_training.py::test_a_step_leaves_a_frozen_encoder_without_a_gradient"),
    Mutation("finite differences agree with autograd", "tokenizer/rqvae.py", "torch.addmm(-book_Ke.square().sum(1)",
             "torch.addmm(-book_Ke.detach().square().sum(1)",
             "training/test_assignment.py::test_finite_differences_agree_with_autograd_on_a_soft_forward_model"),
    # FrqUD
    Mutation("only items on hot codes receive noise", FRQUD, 'state["f"][decider] > self.config.r', 'state["f"][decider] < self.config.r',
             "training/test_assignment.py::test_frqud_noise_reaches_only_items_on_hot_codes"),
    Mutation("hot is strict", FRQUD, 'state["f"][decider] > self.config.r', 'state["f"][decider] >= self.config.r',
             "training/test_schedules.py::test_frqud_is_strict_and_starts_at_one_over_k"),
    Mutation("f sums to 1", FRQUD, "(1 - decay) * f_hat", "f_hat", "training/test_schedules.py::test_frqud_usage_sums_to_one"),
    Mutation("f is untouched in eval mode", "training/loop.py", "steps, epoch = len(self.context.batches), state.position.epoch + 1",
             "steps, epoch = len(self.context.batches), state.position.epoch + 1\n"
             "        if self.config.learns:\n"
             "            state.schedule = self.context.schedule.update(state.schedule, state.sums[1], self.context.items.codes_NM)",
             "training/test_training.py::test_the_end_of_an_epoch_leaves_the_schedule_as_it_is"),
    Mutation("f is saved and restored", RESUME, 'state.schedule = {name: value.to(state.device) for name, value in tensors["schedule"].items()}',
             'state.schedule["step"] = tensors["schedule"]["step"].to(state.device)', RESUMED),
    Mutation("r = 0 is plain Gumbel", FRQUD, "if self.config.r == 0:", "if False:",
             "training/test_schedules.py::test_frqud_with_r_zero_is_gumbel_and_with_r_infinite_is_deterministic"),
    Mutation("r = inf is deterministic", FRQUD, 'state["f"][decider] > self.config.r', 'state["f"][decider] > min(self.config.r, 2)',
             "training/test_schedules.py::test_frqud_with_r_zero_is_gumbel_and_with_r_infinite_is_deterministic"),
    # SDUD
    Mutation("argmin of L_sigma is max(0, sqrt(L) - lambda)", SDUD, "(2 * (sigma + lambda_) ** 2)", "((sigma + lambda_) ** 2)",
             "training/test_schedules.py::test_the_minimum_of_the_sdud_loss_is_the_closed_form_on_a_grid"),
    Mutation("... and SDUD goes there", SDUD, "1 / total - loss_gen.detach() / total**3", "1 / total - 2 * loss_gen.detach() / total**3",
             "training/test_schedules.py::test_the_closed_form_gradient_of_the_sdud_loss_is_autograd_s"),
    Mutation("sigma is never negative", SDUD, ".clamp(min=0)", ".clamp(min=-1)",
             "training/test_schedules.py::test_sdud_sigma_is_never_negative_nor_nan"),
    Mutation("L_sigma changes no gradient but sigma's: its own", SDUD, "return loss_gen.detach() / (2", "return loss_gen / (2",
             "training/test_assignment.py::test_sigma_carries_no_gradient_and_adding_its_loss_changes_no_other"),
    Mutation("L_sigma changes no gradient but sigma's: L_gen's", ASSIGN, "sigma(level, torch.stack(det, 1))).detach()",
             "sigma(level, torch.stack(det, 1)))",
             "training/test_assignment.py::test_sigma_carries_no_gradient_and_adding_its_loss_changes_no_other"),
    # Table
    Mutation("refresh is idempotent", TABLE, "suffix[rows] = previous_suffix[rows]\n", "suffix[rows] = (previous_suffix[rows] + 1) % suffixes\n",
             "ids/test_id_table.py::test_a_second_refresh_changes_nothing"),
    Mutation("a suffix is kept while its prefix is", TABLE, "        kept[rows] = True\n", "",
             "ids/test_id_table.py::test_suffixes_follow_the_rule_item_by_item"),
    Mutation("tuples are unique", TABLE, "return r + through - before", "return r",
             "ids/test_id_table.py::test_full_tuples_are_unique_and_row_order_does_not_matter"),
    Mutation("row order changes no ID", TABLE, "movers = order_N.to(device)[~kept[order_N.to(device)]]", "movers = (~kept).nonzero()[:, 0]",
             "ids/test_id_table.py::test_full_tuples_are_unique_and_row_order_does_not_matter"),
    Mutation("additions take no released ID", TABLE, ", key_R * _SPAN + released[:, -1]]", "]",
             "ids/test_id_table.py::test_removing_and_adding_items_moves_no_other_item"),
    Mutation("removals change no ID", TABLE, "(previous_codes == codes_NM).all(1) & (previous_suffix >= 0)",
             "(previous_codes == codes_NM).all(1) & (previous_suffix > 0)",
             "ids/test_id_table.py::test_removing_and_adding_items_moves_no_other_item"),
    Mutation("the suffix rule, item by item", TABLE, "movers[torch.argsort(key_N[movers], stable=True)]",
             "movers.flip(0)[torch.argsort(key_N[movers.flip(0)], stable=True)]", "ids/test_id_table.py::test_suffixes_follow_the_rule_item_by_item"),
    # Collapse
    Mutation("Gumbel noise keeps the prefixes", CONSTANT, "self.config.sigma_0, device=det_Vj.device", "0.0, device=det_Vj.device",
             "training/test_collapse.py::test_straight_through_collapses_and_gumbel_does_not[0]"),
    Mutation("straight-through loses them", CONSTANT, f'noise = "none"{ZEROS}zeros', f'noise = "gumbel"{ZEROS}ones',
             "training/test_collapse.py::test_straight_through_collapses_and_gumbel_does_not[0]"),
    # Checkpoint
    Mutation("save, load: the same bits", "training/checkpoint.py", "value.detach().cpu().contiguous().clone()",
             "(value.detach().cpu().bfloat16().to(value.dtype) if value.is_floating_point() else value.detach().cpu()).contiguous().clone()",
             "training/test_checkpoint.py::test_what_is_loaded_is_bit_equal_to_what_was_saved"),
    Mutation("save, load: the same table", RESUME, '"codes": table.codes_NM,', '"codes": table.codes_NM.flip(0),', RESUMED),
    Mutation("... and not the best one's", RESUME, '"table": {**_table_tensors(state.table)', '"table": {**_table_tensors(state.best.table)',
             RESUMED.replace("-7", "-17")),
    Mutation("resumed equals unbroken: generators", RESUME, 'torch.set_rng_state(states[f"cpu.{rank}"])', "pass", RESUMED),
    Mutation("resumed equals unbroken: optimizer", RESUME, 'state.optimisation.load_state(tensors["optimizer"])', "pass", RESUMED),
    Mutation("resumed equals unbroken: data position", RESUME, '"epoch", "batch", "step"', '"epoch", "step"',
             RESUMED.replace("-7", "-1")),
    Mutation("resumed equals unbroken: early stop", RESUME, '"step", "stale", "last_from"', '"step", "last_from"', 
             "training/test_resume.py::test_a_resumed_run_stops_as_early_as_the_unbroken_one"),
    Mutation("resumed equals unbroken: codebooks", RESUME, 'state.tokenizer.load_state_dict(tensors["tokenizer"])', "pass", RESUMED),
    Mutation("resumed equals unbroken: best state", RESUME, 'state.device), document["best"]["epoch"], document["best"]["ndcg"]',
             "state.device)", RESUMED),
    Mutation("resumed equals unbroken: figures of the epoch", RESUME, 'state.sums.copy_(tensors["table"]["sums"])', "pass",
             RESUMED.replace("-7", "-1")),
    Mutation("resumed equals unbroken: gradient alarm", RESUME, 'state.gradients.load(document["gradients"])', "pass", RESUMED),
    # Beams
    Mutation("beams equal brute force: nothing is renormalised", BEAM, "(score_BW - logits_BWK.logsumexp(dim=-1))",
             "(score_BW - logits_BWK.topk(2, dim=-1).values.logsumexp(dim=-1))", BRUTE_FORCE),
    Mutation("no score is above brute force's best", BEAM, "code_BWC, node_BWC, (base_BW1", "code_BWC, node_BWC, (0.01 + base_BW1",
             "recommender/test_beam.py::test_few_beams_return_true_scores_never_above_the_best"),
    Mutation("every beam is a real item", "recommender/trie.py", "(child_XC < end_X[..., None])", "(child_XC <= end_X[..., None])",
             "recommender/test_trie.py::test_allowed_codes_are_exactly_the_continuations_in_the_table"),
    Mutation("keys and values follow their beam", BEAM, "cache = cache.select(parent_BW)", "cache = cache.select(parent_BW * 0)",
             BRUTE_FORCE),
    # Soft input, the whole test period
    Mutation("soft input weighs each level by its own gaps", "recommender/history_input.py", "tok.input_alpha_M[level]", "tok.input_alpha_M[0]",
             "recommender/test_history_input.py::test_weights_are_the_softmax_of_the_distances_along_the_tables_codes"),
    Mutation("the whole period draws users, not events", "evaluation/period.py", "float(column_X @ self.products_XX @ column_X)",
             "mean * (1 - mean) * total", "evaluation/test_period.py::test_the_interval_is_that_of_drawing_users_not_events"),
    # The start, the ranks, the size
    Mutation("L_gen starts within 0.1 of ln K", "recommender/model.py", "nn.init.normal_(table, std=0.02)", "nn.init.normal_(table, std=0.3)",
             "training/test_training.py::test_loss_gen_starts_near_the_logarithm_of_k"),
    Mutation("two ranks match one: gradients", "training/distributed.py", "dist.all_reduce(flat)", "dist.all_reduce(flat), flat.mul_(0.5)",
             "training/test_distributed.py::test_two_ranks_match_one_after_twenty_steps"),
    Mutation("two ranks match one: usage of the whole batch", "training/loop.py", "observe(outcome.det_VM)",
             "observe(outcome.det_VM[self.ranks.rank :: self.ranks.world])",
             "training/test_distributed.py::test_two_ranks_match_one_after_twenty_steps"),
    Mutation("two fast ranks count an item once", "fast/rows.py", "mine.counted_V = mine.mask_V & ", "mine.counted_V = mine.mask_V | ",
             "fast/test_fast_ranks.py::test_two_fast_ranks_give_the_reference_of_one"),
    Mutation("two fast ranks sum the codebooks' gradient, too", "fast/captured.py", "sum_flat_(self.flat.exchange)", "sum_flat_(self.flat.gradient)",
             "fast/test_fast_ranks.py::test_two_fast_ranks_give_the_reference_of_one"),
    Mutation("a step's memory does not grow with the catalogue", "fast/rows.py", "if items > SPARSE * places", "if False",
             "training/test_large_catalogue.py::test_no_tensor_of_a_step_has_the_catalogue_s_size"),
    # What tests once did not notice
    Mutation("SASRec's epoch is chosen on validation", "recommender/sasrec.py", 'rank([model], seq, "validation", device)',
             'rank([model], seq, "test", device)', "recommender/test_sasrec.py::test_the_epoch_is_chosen_without_the_test_events"),
    Mutation("codebooks have a weight decay of their own", "training/optimisation.py", "joint.codebook_weight_decay)", "training.weight_decay)",
             "training/test_optimisation.py::test_each_group_has_its_own_rate_and_decay"),
    operations("fresh is newer than every event of the champion", MEASURES, "seq.timestamps_E[end_T] > newest", "seq.timestamps_E[end_T] >= newest",
               "verdict/test_slices.py::test_fresh_is_the_targets_own_time_after_the_champions_newest"),
    operations("... by the target's own time", MEASURES, "seq.timestamps_E[end_T] > newest", "seq.timestamps_E[end_T - 1] > newest",
               "verdict/test_slices.py::test_fresh_is_the_targets_own_time_after_the_champions_newest"),
    # Operations: locks, cleaning, previous snapshot, the champion, the UI's doors
    Mutation("gc and forget exclude what works", "store/lease.py", "kind in _REMOVES or other in _REMOVES or", "kind in _REMOVES or",
             "store/test_lease.py::test_who_may_work_beside_whom"),
    Mutation("a dead owner frees its lease", "store/lease.py", "return near(lease.owner) and ended(lease.owner)", "return False",
             "store/test_lease.py::test_one_that_is_killed_frees_its_lease_while_another_waits"),
    Mutation("a stopped owner is no dead one", "store/lease.py", "return not near(lease.owner) and now - since > DEAD_AFTER",
             "return now - since > DEAD_AFTER", "store/test_lease.py::test_one_that_is_stopped_here_is_alive_however_long"),
    Mutation("what cannot be read is not damaged", "store/artefacts.py", "        except Damaged:\n            existing = None",
             "        except DigerError:\n            existing = None",
             "store/test_store_faults.py::test_an_artefact_that_cannot_be_read_now_is_not_taken_for_a_damaged_one"),
    Mutation("new directories outlive a power loss", "store/durable.py", "        sync(os.path.dirname(each))\n", "",
             "store/test_store.py::test_every_new_directory_and_file_is_on_the_disk_before_it_is_relied_on"),
    operations("nothing is published from a forgotten input", "engine/runner.py", "                    held.confirm()\n"
               "                    refuse_forgotten(self.store, what, inputs.values())\n", "",
               "engine/test_sharing.py::test_no_stage_publishes_from_an_input_that_was_taken_out_meanwhile"),
    operations("forgotten data does not come back", "engine/runner.py", "                refuse_return(self.store, what, artefact)\n", "",
               "engine/test_sharing.py::test_no_stage_publishes_from_an_input_that_was_taken_out_meanwhile"),
    operations("no measure before a first release", "engine/registry.py", 'if not store.root.list("champion"):', "if False:",
               "validation/test_bad_input.py::test_before_anything_was_released_no_snapshot_is_a_measure"),
    operations("a refused snapshot is no measure", "engine/registry.py", "                    stage.refuse(store.artefact(stage.name, "
               'record["artefact"]))\n', "",
               "validation/test_bad_input.py::test_a_refused_snapshot_and_one_that_nobody_ran_are_no_measure"),
    operations("a shrunken snapshot is refused", "validation/quarantine.py", 'return check("volume", low <= ratio <= high,',
               'return check("volume", ratio <= high,',
               "validation/test_bad_input.py::test_a_shrunken_snapshot_is_refused_against_the_last_accepted_one"),
    operations("the demo is no measure for a shop", "engine/registry.py", "if is_demo(entry.url) == is_demo(url)]", "]",
               "validation/test_bad_input.py::test_the_demo_is_no_measure_for_a_shop_of_ones_own_and_shares_no_store_with_it_once_something_serves"),
    operations("the end of the interval that is judged", "verdict/gate/rules.py", "seen[config.judge] >= least, seen[config.judge], least, text",
               'seen["mean"] >= least, seen[config.judge], least, text', "verdict/test_gate.py::test_which_end_of_the_interval_counts_is_a_choice"),
    operations("a slice refuses only a real loss", "verdict/gate/rules.py", 'config.min_relative_slice and row["difference"]["high"] < 0',
               "config.min_relative_slice", "verdict/test_gate.py::test_a_slice_refuses_only_a_large_loss_that_is_real[head]"),
    operations("what the champion meets is not excused", "verdict/gate/rules.py", "theirs is None or met or theirs > ours",
               "theirs is None or theirs > ours", "verdict/test_gate.py::test_the_baseline_rule_is_not_excused_where_the_champion_meets_it"),
    operations("a stage computes what it is called by", "graph.py", "orchestration.features.neighbours:neighbours",
               "orchestration.features.sequences:sequences",
               "test_graph.py::test_every_hook_of_a_stage_exists_and_its_function_lies_in_its_groups_folder[neighbours]"),
    operations("a change of champion is checked again", "champion/log.py", "                check(before)\n",
               "                check(before) if not loaded else None\n",
               "champion/test_champion.py::test_the_loser_of_a_race_is_refused_where_its_check_no_longer_holds"),
    operations("a late artefact is found by the old numbering", "audit/forget.py", "    for hash_, note in _renumbered_away(index).items():",
               "    for hash_, note in {}.items():",
               "audit/test_audit_removal.py::test_an_artefact_that_comes_after_the_forgetting_is_found_by_the_old_numbering"),
    operations("a foreign Host is refused", "on_dagster/doors.py", "if _name(host) not in LOOPBACK:", "if False:",
               "on_dagster/test_doors.py::test_pages_of_other_sites_are_refused"),
    operations("nothing changes by GET", "on_dagster/doors.py", 'if method in _READING and scope.get("query_string"):', "if False:",
               "on_dagster/test_doors.py::test_pages_of_other_sites_are_refused"),
    operations("a run of the UI stays in the project", "on_dagster/resources.py", "return Path(path).resolve().is_relative_to",
               "return Path(path).absolute().is_relative_to", "on_dagster/test_jail.py::test_other_files_are_refused_unread"),
]  # fmt: skip


def broken(mutation: Mutation) -> str:
    """The text of the mutated file. ValueError where the place is no longer there: the list must follow the code."""
    text = (REPOSITORY / mutation.path).read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.property}: {mutation.old!r} occurs {text.count(mutation.old)} times in {mutation.path}, wanted once")
    return text.replace(mutation.old, mutation.new)


def tested(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """(exit status of pytest on the copy, its last lines)."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(folder)}, check=False)
    return done.returncode, "\n".join(done.stdout.splitlines()[-12:])


def main(words: Sequence[str]) -> int:
    """0: every chosen mutation was caught."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.property for word in words)]
    survivors = 0
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for name in COPIED:
            source = REPOSITORY / name
            ignored = shutil.ignore_patterns("__pycache__", ".hypothesis")
            shutil.copytree(source, folder / name, ignore=ignored) if source.is_dir() else shutil.copy(source, folder / name)
        status, told = tested(folder, sorted({m.node for m in chosen}))
        if status:
            raise SystemExit(f"the tests do not pass before anything is broken:\n{told}")
        for mutation in chosen:
            place = folder / mutation.path
            whole, started = place.read_text(encoding="utf-8"), time.monotonic()
            place.write_text(broken(mutation), encoding="utf-8")
            status, told = tested(folder, [mutation.node])
            place.write_text(whole, encoding="utf-8")
            verdict = "caught" if status == 1 else "SURVIVED" if status == 0 else f"pytest ended with {status}"
            survivors += status != 1
            print(f"{verdict:<10} {time.monotonic() - started:5.1f} s  {mutation.property:<58} {mutation.node}", flush=True)
            if status != 1:
                print(told, flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return survivors


if __name__ == "__main__":
    raise SystemExit(min(main(sys.argv[1:]), 1))
