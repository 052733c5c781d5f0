"""FedAvg: the next global model is the mean of the sites' models, weighted by training slices (McMahan et al. 2017, arXiv:1602.05629)."""

from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.strategies.strategy import Strategy

FEDAVG = Strategy(settings=StrategyConfig, title="FedAvg", paper="McMahan et al. 2017, arXiv:1602.05629")
