# %% [markdown]
# # A strategy of your own
#
# A strategy can live in a package of your own; fl_rsna finds it by an entry point and need not be changed. This tutorial reads the example package
# `examples/my_strategy`, which adds FedCM (Xu et al. 2021), checks its rule by hand on two numbers, and says what to change to make it yours.
#
# FedCM mixes each gradient of a site with the federation's gradient of the last round: `g <- alpha g + (1 - alpha) delta`.
#
# Run the cells in the root folder of the source distribution or of a checkout, in the environment of fl_rsna.

# %%
import sys

import numpy as np

sys.path.insert(0, "examples/my_strategy")  # instead of installing the package

from my_strategy.fedcm import MY_STRATEGY, FedCMConfig

from fl_rsna.strategies.strategy import RoundAggregate, Step

# %% [markdown]
# ## 1. The settings
#
# The settings are a dataclass. `declare` gives each one a default, a meaning and a range; from it come the check, the message about a wrong value, and the
# documentation. A value outside the range is refused before the run begins.

# %%
print(FedCMConfig())

# %% [markdown]
# ## 2. What the server does
#
# `next_model` takes a `Step` and the server's memory, and returns the next global model and the new memory. A `Step` holds the model `x` that the round
# started from and an `aggregate` of the replies: `mean` is the weighted mean of the sites' models, `second` the mean of the second vectors that the sites sent.
#
# FedCM's server moves to the mean, as FedAvg does, and remembers the sites' mean gradient as `delta`. On two parameters this can be checked by hand:

# %%
x, mean, gradient = (np.array(values, np.float32) for values in ([1.0, 1.0], [3.0, 0.0], [-2.0, 1.0]))
everywhere = np.ones(2, bool)
step = Step(
    config=FedCMConfig(),
    rate=1.0,
    round=1,
    x=x,
    aggregate=RoundAggregate(mean=mean, weight=2.0, examples=2.0, work=2.0, count=2, second=gradient),
    num_sites=2,
    stepped=everywhere,
    trained=everywhere,
)
model, memory = MY_STRATEGY.next_model(step, {})
print("next model", model, "delta", memory["delta"])
assert model.tolist() == [3.0, 0.0]
assert memory["delta"].tolist() == [-2.0, 1.0]

# %% [markdown]
# At a server rate of 0.5 the server moves half of the way:

# %%
from dataclasses import replace

half, _ = MY_STRATEGY.next_model(replace(step, rate=0.5), {})
print("half way", half)
assert half.tolist() == [2.0, 0.5]

# %% [markdown]
# ## 3. What is sent with the model
#
# `second` makes the vector that goes to the sites with the model. In the first round there is no gradient yet, so it is zero.

# %%
print("first round", MY_STRATEGY.second({}, 2), "then", MY_STRATEGY.second(memory, 2))
assert MY_STRATEGY.second({}, 2).tolist() == [0.0, 0.0]
assert MY_STRATEGY.second(memory, 2).tolist() == [-2.0, 1.0]

# %% [markdown]
# ## 4. What a site does
#
# `train` in `my_strategy/fedcm.py` is the site's part. It passes a `LocalRule` to `train_by_rule`: its `correct` is called at each step,
# after the gradients are computed and before the optimizer uses them. The site returns its result and its own mean gradient as `second`.
# A strategy without a rule at the sites leaves `train` out, and sites train as under FedAvg.
#
# ## 5. Make it yours
#
# 1. Copy `examples/my_strategy` and rename the folder, the package and the name in `pyproject.toml`.
# 2. Rename the strategy in three places, which must agree: `declare_name("my_strategy")`, the file `conf/strategy/my_strategy.yaml` with its line `name:`, and
#    the entry point `my_strategy = "my_strategy.fedcm:MY_STRATEGY"`.
# 3. Write your rule. Check it by hand as above. A good law is a limit: FedCM with `alpha=1` is FedAvg, bit by bit.
# 4. Install the package and run it:
#
#         pip install examples/my_strategy
#         fl-rsna simulate strategy=my_strategy strategy.alpha=0.2
#
# 5. Compare it with FedAvg over several seeds:
#
#         fl-rsna simulate --multirun strategy=fedavg,my_strategy seed=0,1,2 run.name=mine
#
# Networks, tasks and ways to split patients are added in the same way, by the entry points `fl_rsna.models`, `fl_rsna.tasks` and `fl_rsna.partitioners`.
#
# Between hospitals the coordinator and every site install the same version of the package. A site that lacks it says so before the run begins.
